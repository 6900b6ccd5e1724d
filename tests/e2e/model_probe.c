/* What a container may do with a file of a model: each try, and the errno of its end (0: it was let). Static, part of the tests' image. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void said(const char *what, int failed)
{
	printf("%s=%d\n", what, failed ? errno : 0);
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "/models/demo/demo.gguf";
	struct rlimit limit = { 0, 0 };
	struct stat about = { 0 };
	void *map;
	int file = open(path, O_RDWR);

	said("open-for-writing", file < 0);
	said("truncate", truncate(path, 0));
	said("chmod", chmod(path, 0666));
	said("unlink", unlink(path));
	file = open(path, O_RDONLY);
	said("open-for-reading", file < 0);
	fstat(file, &about);
	map = mmap(0, about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	said("map-for-writing", map == MAP_FAILED);
	map = mmap(0, about.st_size, PROT_READ, MAP_SHARED, file, 0);
	said("map-for-reading", map == MAP_FAILED);
	said("make-writable", mprotect(map, about.st_size, PROT_READ | PROT_WRITE));
	said("punch-a-hole", fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
	getrlimit(RLIMIT_MEMLOCK, &limit);
	printf("memlock-limit=%llu\n", (unsigned long long)limit.rlim_cur);
	said("lock", mlock(map, about.st_size));
	said("page-out", madvise(map, about.st_size, MADV_PAGEOUT));
	return 0;
}
