/* What a malicious model or server tries from inside its container, through the kernel alone: one line for each try, `@TRY name ok` or
   `@TRY name no: reason`. The attack suite (T21) runs it under a policy that leaves everything to the host, and under an ordinary one. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void tell(const char *name, long result)
{
	if (result >= 0)
		printf("@TRY %s ok\n", name);
	else
		printf("@TRY %s no: %s\n", name, strerror(errno));
	fflush(stdout);
}

/* The host: on port 1027 the simulated platform signs reports for whoever is in the guest. */
static long vsock(void)
{
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	struct sockaddr_vm host = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 1027 };

	if (fd < 0)
		return -1;
	return connect(fd, (struct sockaddr *)&host, sizeof(host));
}

/* In a child: what it gains ends with it. */
static long in_child(int (*attempt)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(attempt() < 0 ? errno : 0);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return -1;
	if (!WIFEXITED(status))
		errno = EINTR;
	else if (WEXITSTATUS(status) == 0)
		return 0;
	else
		errno = WEXITSTATUS(status);
	return -1;
}

static int new_namespaces(void) { return unshare(CLONE_NEWNS | CLONE_NEWNET); }
static int mounts(void) { return mount("none", "/tmp", "tmpfs", 0, ""); }
static int device(void) { return mknod("/tmp/disk", S_IFBLK | 0600, makedev(254, 0)); }
static int locks(void)
{
	void *memory = mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? -1 : mlock(memory, 64 << 20);
}
static int clock_set(void)
{
	struct timespec now;

	return clock_gettime(CLOCK_REALTIME, &now) < 0 ? -1 : clock_settime(CLOCK_REALTIME, &now);
}
static int raw_socket(void) { return socket(AF_PACKET, SOCK_RAW, 0); }
static int host_name(void) { return sethostname("evil", 4); }

static long opens(const char *path, int flags)
{
	int fd = open(path, flags);

	if (fd >= 0)
		close(fd);
	return fd;
}

int main(void)
{
	tell("vsock", vsock());
	tell("namespaces", in_child(new_namespaces));
	tell("mount", in_child(mounts));
	tell("device-node", in_child(device));
	tell("mlock", in_child(locks));
	tell("clock", in_child(clock_set));
	tell("packet-socket", in_child(raw_socket));
	tell("hostname", in_child(host_name));
	tell("initdata-disk", opens("/dev/vda", O_RDONLY));
	tell("sysctl", opens("/proc/sys/kernel/panic", O_WRONLY));
	tell("sysrq", opens("/proc/sysrq-trigger", O_WRONLY));
	tell("kmsg", opens("/dev/kmsg", O_RDONLY));
	tell("physical-memory", opens("/dev/mem", O_RDWR));
	tell("kcore", opens("/proc/kcore", O_RDONLY));
	tell("modules", syscall(SYS_init_module, NULL, 0, ""));
	tell("bpf", syscall(SYS_bpf, 0, NULL, 0));
	tell("io_uring", syscall(SYS_io_uring_setup, 1, NULL));
	tell("trace-parent", ptrace(PTRACE_ATTACH, 1, NULL, NULL));
	puts("@DONE");
	return 0;
}
