/* The smallest guest that can say it is ready: PID 1 that listens on vsock port 1024 and does nothing else. What boot to agent ready is
   compared with in `make bench`. */
#include <linux/vm_sockets.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = 1024 };
	int listener = socket(AF_VSOCK, SOCK_STREAM, 0);

	mount("dev", "/dev", "devtmpfs", 0, 0);
	bind(listener, (struct sockaddr *)&address, sizeof address);
	listen(listener, 8);
	for (;;) {
		int stream = accept(listener, 0, 0);
		if (stream >= 0)
			close(stream);
	}
}
