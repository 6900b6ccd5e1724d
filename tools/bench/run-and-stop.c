/* PID 1 that runs one program, named with its arguments on the kernel's command line behind `--`, and stops the machine when it ends. */
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int status = -1;
	pid_t child;

	mount("proc", "/proc", "proc", 0, 0);
	mount("sys", "/sys", "sysfs", 0, 0);
	mount("dev", "/dev", "devtmpfs", 0, 0);
	if (argc > 1) {
		child = fork();
		if (child == 0) {
			execv(argv[1], argv + 1);
			_exit(127);
		}
		waitpid(child, &status, 0);
	}
	printf("\nended: %d\n", status);
	fflush(stdout);
	sleep(1);
	reboot(RB_AUTOBOOT);
	return 0;
}
