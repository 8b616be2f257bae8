/* The floor: what a warm `run --network none IMAGE true` cannot do without, as the system calls themselves. Nothing is
 * parsed, planned or recorded; what is left is the kernel's own price of create + start + exit + delete.
 *
 *   floor ROOTFS SCRATCH RUNS PAUSE_MS       one line of JSON on stdout: medians and 90th percentiles in milliseconds
 *
 * ROOTFS holds a static /bin/true and the folders proc, dev, sys and tmp; in SCRATCH the writable layers are made. For
 * each run: a cgroup in each version 1 hierarchy (or one of version 2), pids limit and device rules; clone3 with new
 * mount, pid, network, uts and ipc namespaces; the child joins (version 1: `0` to each `tasks`; version 2:
 * CLONE_INTO_CGROUP), then unshares its cgroup namespace; overlay, proc, dev, pts, shm, mqueue, sysfs, cgroups read-only;
 * six nodes, the links, masks and read-only paths; pivot_root; host name; capabilities, no_new_privs, a seccomp filter;
 * exec; wait; all is removed again. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_seccomp
#define SYS_seccomp 317
#endif
enum { TREES = 16, FILTER_ROWS = 300, SYS_CLOSE_RANGE = 436, INTO_CGROUP_HIGH = 2 /* CLONE_INTO_CGROUP >> 32 */ };
enum { QUIET = MS_NOSUID | MS_NODEV | MS_NOEXEC };

static struct { char root[128], dir[192], name[64]; } tree[TREES];
static int trees, version2, device_program = -1;
static const char *rootfs, *scratch;
static char place[256], layers[900];

static void die(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	_exit(125);
}

static void must(int result, const char *what)
{
	if (result < 0)
		die(what);
}

static void put(const char *dir, const char *file, const char *text)
{
	char path[400];
	snprintf(path, sizeof path, "%s/%s", dir, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	must(fd, path);
	must(write(fd, text, strlen(text)), path);
	close(fd);
}

static void copy(const char *from, const char *to, const char *file)
{
	char path[400], text[256];
	snprintf(path, sizeof path, "%s/%s", from, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd, path);
	ssize_t length = read(fd, text, sizeof text - 1);
	must(length, path);
	text[length] = 0;
	close(fd);
	put(to, file, text);
}

static int has(const char *options, const char *name) /* one word of a comma-separated list */
{
	size_t n = strlen(name);
	for (const char *p = options; (p = strstr(p, name)); p += n)
		if ((p == options || p[-1] == ',') && (p[n] == ',' || p[n] == 0))
			return 1;
	return 0;
}

/* Version 1 if a controller is mounted that way; the `unified` tree of a hybrid layout then stays out of it. */
static void find_trees(void)
{
	char line[1024], where[128], kind[32], options[256], unified[128] = "";
	static const char *controllers[] = { "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", 0 };
	FILE *mounts = fopen("/proc/self/mounts", "re");
	if (!mounts)
		die("/proc/self/mounts");
	while (fgets(line, sizeof line, mounts)) {
		if (sscanf(line, "%*s %127s %31s %255s", where, kind, options) != 3)
			continue;
		if (!strcmp(kind, "cgroup2") && !*unified)
			strcpy(unified, where);
		for (int c = 0; !strcmp(kind, "cgroup") && controllers[c] && trees < TREES; c++)
			if (has(options, controllers[c])) {
				snprintf(tree[trees].name, sizeof tree->name, "%s", controllers[c]);
				strcpy(tree[trees++].root, where);
				break;
			}
	}
	fclose(mounts);
	if (!trees && *unified) {
		version2 = trees = 1;
		strcpy(tree->root, unified);
		strcpy(tree->name, "unified");
	}
	for (int t = 0; t < trees; t++)
		snprintf(tree[t].dir, sizeof tree->dir, "%s/floor-%d", tree[t].root, getpid());
}

/* Version 2 has no device files: a BPF program of two instructions stands for the real one. */
static void load_device_program(void)
{
	uint64_t code[2] = { 0xb7 | 1ULL << 32, 0x95 };
	struct {
		uint32_t type, count;
		uint64_t code, license;
		uint32_t level, size;
		uint64_t log;
		uint32_t version, flags;
	} load = { .type = 15, .count = 2, .code = (uintptr_t)code, .license = (uintptr_t)"GPL" };
	device_program = syscall(SYS_bpf, 5, &load, sizeof load);
}

static void attach_device_program(int cgroup)
{
	struct { uint32_t target, program, type, flags; } attach = { cgroup, device_program, 6, 0 };
	if (device_program >= 0)
		must(syscall(SYS_bpf, 8, &attach, sizeof attach), "attach the device program");
}

static void make_cgroups(void)
{
	static const char *rules[] = { "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",
		"c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm" };
	for (int t = 0; t < trees; t++) {
		const char *dir = tree[t].dir, *name = tree[t].name;
		must(mkdir(dir, 0755), dir);
		if (!strcmp(name, "pids") || version2)
			put(dir, "pids.max", "2048");
		if (!strcmp(name, "cpuset")) {
			copy(tree[t].root, dir, "cpuset.cpus");
			copy(tree[t].root, dir, "cpuset.mems");
		}
		if (!strcmp(name, "devices")) {
			put(dir, "devices.deny", "a");
			for (size_t r = 0; r < sizeof rules / sizeof *rules; r++)
				put(dir, "devices.allow", rules[r]);
		}
	}
}

static void remove_cgroups(void)
{
	for (int t = 0; t < trees; t++)
		for (int tries = 0; rmdir(tree[t].dir); tries++) {
			if (errno != EBUSY || tries == 1000)
				die(tree[t].dir);
			usleep(200);
		}
}

static void mounted(const char *source, const char *target, const char *kind, unsigned long flags, const char *data)
{
	must(mount(source, target, kind, flags, data), target);
}

static void mount_cgroups(void)
{
	char target[300];
	if (version2) {
		mounted("cgroup", "sys/fs/cgroup", "cgroup2", QUIET | MS_RDONLY, 0);
		return;
	}
	mounted("tmpfs", "sys/fs/cgroup", "tmpfs", QUIET, "mode=755");
	for (int t = 0; t < trees; t++) {
		snprintf(target, sizeof target, "sys/fs/cgroup/%s", tree[t].name);
		must(mkdir(target, 0755), target);
		mounted(tree[t].dir, target, 0, MS_BIND, 0);
		mounted(0, target, 0, MS_BIND | MS_REMOUNT | MS_RDONLY | QUIET, 0);
	}
	mounted(0, "sys/fs/cgroup", 0, MS_REMOUNT | MS_RDONLY | QUIET, "mode=755");
}

static void make_dev(void)
{
	static const struct { const char *path; int major, minor; } nodes[] = { { "dev/null", 1, 3 }, { "dev/zero", 1, 5 },
		{ "dev/full", 1, 7 }, { "dev/random", 1, 8 }, { "dev/urandom", 1, 9 }, { "dev/tty", 5, 0 } };
	static const char *links[][2] = { { "/proc/self/fd", "dev/fd" }, { "/proc/self/fd/0", "dev/stdin" },
		{ "/proc/self/fd/1", "dev/stdout" }, { "/proc/self/fd/2", "dev/stderr" }, { "pts/ptmx", "dev/ptmx" } };
	mounted("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
	for (size_t d = 0; d < 3; d++)
		must(mkdir(((const char *[]){ "dev/pts", "dev/shm", "dev/mqueue" })[d], 0755), "mkdir in dev");
	mounted("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
	mounted("shm", "dev/shm", "tmpfs", QUIET, "mode=1777,size=65536k");
	mounted("mqueue", "dev/mqueue", "mqueue", QUIET, 0);
	for (size_t n = 0; n < sizeof nodes / sizeof *nodes; n++) {
		must(mknod(nodes[n].path, S_IFCHR | 0666, makedev(nodes[n].major, nodes[n].minor)), nodes[n].path);
		must(chmod(nodes[n].path, 0666), nodes[n].path);
	}
	for (size_t l = 0; l < sizeof links / sizeof *links; l++)
		must(symlink(links[l][0], links[l][1]), links[l][1]);
}

static void hide_paths(void)
{
	static const char *masked[] = { "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap" };
	static const char *read_only[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger" };
	struct stat found;
	for (size_t p = 0; p < sizeof read_only / sizeof *read_only; p++)
		if (!mount(read_only[p], read_only[p], 0, MS_BIND | MS_REC, 0))
			mounted(0, read_only[p], 0, MS_BIND | MS_REMOUNT | MS_RDONLY | QUIET, 0);
		else if (errno != ENOENT)
			die(read_only[p]);
	for (size_t p = 0; p < sizeof masked / sizeof *masked; p++)
		if (lstat(masked[p], &found))
			continue;
		else if (S_ISDIR(found.st_mode))
			mounted("tmpfs", masked[p], "tmpfs", MS_RDONLY, "nr_blocks=1,nr_inodes=1");
		else
			mounted("/dev/null", masked[p], 0, MS_BIND, 0);
}

/* Docker's fourteen capabilities, and a filter as long as a compiled default profile: it allows what it does not know. */
static void drop_privileges(void)
{
	const uint64_t kept = 0xa80425fb;
	struct { uint32_t version; int pid; } header = { 0x20080522, 0 };
	uint32_t sets[6] = { kept, kept, 0, 0, 0, 0 };
	static struct { uint16_t code; uint8_t yes, no; uint32_t k; } filter[FILTER_ROWS + 2];
	struct { uint16_t length; void *filter; } program = { FILTER_ROWS + 2, filter };
	filter[0].code = 0x20; /* load the number of the call */
	for (int row = 1; row <= FILTER_ROWS; row++) {
		filter[row].code = 0x15; /* equal: on to the next row either way */
		filter[row].k = row + 1000;
	}
	filter[FILTER_ROWS + 1].code = 0x06;
	filter[FILTER_ROWS + 1].k = 0x7fff0000;
	for (int c = 0; c < 64; c++)
		if (!(kept >> c & 1) && prctl(PR_CAPBSET_DROP, c, 0, 0, 0))
			break;
	must(setgroups(0, 0), "setgroups");
	must(setresgid(0, 0, 0), "setresgid");
	must(setresuid(0, 0, 0), "setresuid");
	must(syscall(SYS_capset, &header, sets), "capset");
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	must(syscall(SYS_seccomp, 1, 0, &program), "seccomp");
}

static void contain(void)
{
	char *arguments[] = { "true", 0 }, *environment[] = { "PATH=/bin", 0 };
	if (!version2)
		for (int t = 0; t < trees; t++)
			put(tree[t].dir, "tasks", "0");
	must(unshare(CLONE_NEWCGROUP), "unshare the cgroup namespace");
	must(setsid(), "setsid");
	mounted(0, "/", 0, MS_REC | MS_SLAVE, 0);
	mounted("overlay", place, "overlay", 0, layers);
	must(chdir(place), place);
	mounted("proc", "proc", "proc", QUIET, 0);
	make_dev();
	mounted("sysfs", "sys", "sysfs", QUIET | MS_RDONLY, 0);
	mount_cgroups();
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "umount the old root");
	must(chdir("/"), "chdir");
	must(sethostname("floor", 5), "sethostname");
	hide_paths();
	must(syscall(SYS_CLOSE_RANGE, 3, ~0U, 4), "close_range");
	drop_privileges();
	execve("/bin/true", arguments, environment);
	die("exec /bin/true");
}

static void make_layers(int make)
{
	char path[400];
	static const char *parts[] = { "", "/upper", "/work", "/root" };
	for (int p = 0; p < 4 && make; p++) {
		snprintf(path, sizeof path, "%s/layer%s", scratch, parts[p]);
		must(mkdir(path, 0755), path);
	}
	if (!make) {
		snprintf(path, sizeof path, "%s/layer/work/work", scratch); /* the kernel's own */
		must(rmdir(path), path);
		for (int p = 3; p >= 0; p--) {
			snprintf(path, sizeof path, "%s/layer%s", scratch, parts[p]);
			must(rmdir(path), path);
		}
	}
}

static void run(void)
{
	struct { uint64_t flags, pidfd, child, parent, signal, stack, size, tls, set, set_size, cgroup; } clone = { 0 };
	int pidfd = -1, cgroup = -1, status;
	make_layers(1);
	make_cgroups();
	clone.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | 0x1000 /* CLONE_PIDFD */;
	clone.pidfd = (uintptr_t)&pidfd;
	clone.signal = SIGCHLD;
	if (version2) {
		must(cgroup = open(tree->dir, O_PATH | O_DIRECTORY | O_CLOEXEC), tree->dir);
		clone.cgroup = cgroup;
		clone.flags |= (uint64_t)INTO_CGROUP_HIGH << 32;
		int readable = open(tree->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		must(readable, tree->dir);
		attach_device_program(readable);
		close(readable);
	}
	pid_t pid = syscall(SYS_clone3, &clone, sizeof clone);
	must(pid, "clone3");
	if (!pid)
		contain();
	must(waitpid(pid, &status, 0), "waitpid");
	close(pidfd);
	if (cgroup >= 0)
		close(cgroup);
	if (status) {
		fprintf(stderr, "floor: /bin/true ended with status %#x\n", status);
		remove_cgroups();
		_exit(1);
	}
	remove_cgroups();
	make_layers(0);
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

int main(int count, char **arguments)
{
	if (count != 5 || atoi(arguments[3]) < 1) {
		fprintf(stderr, "usage: floor ROOTFS SCRATCH RUNS PAUSE_MS\n");
		return 2;
	}
	int runs = atoi(arguments[3]), pause_ms = atoi(arguments[4]), warm = 3;
	double *times = calloc(runs, sizeof *times);
	rootfs = arguments[1];
	scratch = arguments[2];
	find_trees();
	if (version2)
		load_device_program();
	snprintf(place, sizeof place, "%s/layer/root", scratch);
	snprintf(layers, sizeof layers, "lowerdir=%s,upperdir=%s/layer/upper,workdir=%s/layer/work", rootfs, scratch,
		scratch);
	for (int r = -warm; r < runs; r++) {
		if (pause_ms)
			usleep(pause_ms * 1000);
		double began = now();
		run();
		if (r >= 0)
			times[r] = now() - began;
	}
	qsort(times, runs, sizeof *times, ascending);
	printf("{\"median_ms\": %.3f, \"p90_ms\": %.3f, \"runs\": %d, \"pause_ms\": %d, ", times[runs / 2],
		times[runs * 9 / 10], runs, pause_ms);
	printf("\"cgroups\": \"v%d, %d\", \"device_rules\": %s}\n", version2 + 1, trees,
		version2 && device_program < 0 ? "false" : "true");
	return 0;
}
