/* bell: does the container's side of a plan, from clone to exec. It reads a flat plan (see cloche/step/flat.py), does what it
 * says in order and reports; it holds no policy. Descriptors at start: 0 1 2 the container's own, 3 control (SOCK_SEQPACKET),
 * 4 status (pipe), 5 the plan, from 6 on what the plan's StartBell names. One process is the "stage" (actor 1); OP_CLONE makes
 * the other (actor 2), which becomes the container's program. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "bell_table.h"

enum { CONTROL = 3, STATUS = 4, PLAN = 5, FIRST_SLOT = 6 };
enum { STAGE = 1, INIT = 2 };
enum { DONE = 1, FAILED, TOKEN, STARTED, ABORTED };
enum { RESOLVE_NO_MAGICLINKS = 2, RESOLVE_NO_SYMLINKS = 4, RESOLVE_IN_ROOT = 16 };
enum { SYS_OPEN_TREE = 428, SYS_MOVE_MOUNT, SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT, SYS_CLONE3 = 435, SYS_CLOSE_RANGE, SYS_OPENAT2, SYS_MOUNT_SETATTR = 442 };
enum { TREE_CLONE = 1, MOVE_F_EMPTY = 4, MOVE_T_EMPTY = 0x40, FS_FLAG = 0, FS_STRING = 1, FS_CREATE = 6, ATTR_IDMAP = 0x100000, RECURSIVE = 0x8000 };
enum { MAGIC_PROC = 0x9fa0, MAGIC_SYSFS = 0x62656572, MAGIC_DEVPTS = 0x1cd1 };
enum { TEXT_MAX = 1 << 20, GROUPS_MAX = 256 };

struct act { uint16_t op, actor, number, ints; uint32_t strs, size; };
struct report { uint8_t kind, actor; uint16_t number; int32_t value; uint64_t ns; };

static struct act act;            /* the act being done */
static int64_t in[8];             /* its integers */
static const char *next_string;   /* its strings that have not been taken yet */
static int slots[FLAT_SLOTS], root = -1, actor = STAGE, channel = CONTROL, changed_directory;
static pid_t child;
static char detail[256];          /* says more than errno when a step fails */
static struct { uid_t uid; gid_t gid, gids[GROUPS_MAX]; int count; char home[PATH_MAX]; } user;
static struct report reports[512];
static unsigned reported;
static char text[TEXT_MAX + 1];

/* ---- reporting: records gather here and leave in one message when somebody waits for them ---- */

static uint64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void record(int kind, int value) {   /* of a very long plan some steps are not told; what is waited for is */
	if (reported == sizeof reports / sizeof *reports) {
		if (kind == DONE) return;
		reported--;
	}
	reports[reported++] = (struct report){kind, actor, act.number, value, now()};
}

static int flush(int passed) {   /* the reports, and what more there is to say of the last one */
	struct iovec v[2] = {{reports, reported * sizeof *reports}, {detail, reported && reports[reported - 1].kind == FAILED ? strlen(detail) : 0}};
	union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } c = {0};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
	ssize_t n;
	if (passed >= 0) {
		m.msg_control = &c;
		m.msg_controllen = sizeof c.space;
		c.align = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(&c.align), &passed, sizeof passed);
	}
	n = channel == CONTROL ? sendmsg(CONTROL, &m, MSG_NOSIGNAL) : writev(channel, v, 2);
	reported = 0;
	return n < 0 ? -1 : 0;
}

static void fail(int error, int code) {
	record(FAILED, error);
	reports[reported - 1].ns = strlen(detail);
	flush(-1);
	_exit(code);
}

static int explain(const char *what, const char *object) {
	snprintf(detail, sizeof detail, "%.60s%.180s", what, object);
	return -1;
}

/* ---- reading the plan: every length is checked before it is used ---- */

static const char *parse(const char *p, const char *end) {
	const char *s;
	if ((size_t)(end - p) < sizeof act) return 0;
	memcpy(&act, p, sizeof act);
	if (act.size < sizeof act || act.size > (size_t)(end - p) || act.op == 0 || act.op >= FLAT_OPS) return 0;
	if (act.ints != flat_table[act.op].ints || act.ints > 8 || act.strs < flat_table[act.op].few || act.strs > flat_table[act.op].many) return 0;
	end = p + act.size;
	p += sizeof act;
	if ((size_t)(end - p) < act.ints * sizeof *in) return 0;
	memcpy(in, p, act.ints * sizeof *in);
	next_string = s = p + act.ints * sizeof *in;
	for (uint32_t k = 0, n; k < act.strs; k++) {
		if ((size_t)(end - s) < sizeof n) return 0;
		memcpy(&n, s, sizeof n);
		s += sizeof n;
		if ((size_t)(end - s) <= n || s[n]) return 0;
		s += (size_t)n + 1;
	}
	return s == end ? end : 0;
}

static const char *string(uint32_t *length) {
	const char *s = next_string + sizeof(uint32_t);
	uint32_t n;
	memcpy(&n, next_string, sizeof n);
	next_string = s + n + 1;
	if (length) *length = n;
	return s;
}

static int slot(int64_t n) { return n >= 0 && n < FLAT_SLOTS ? slots[n] : -1; }

static int keep(int64_t n, int fd) {
	if (fd < 0 || n < 0 || n >= FLAT_SLOTS) return -1;
	slots[n] = fd;
	return 0;
}

/* ---- paths inside the root: only the kernel resolves them, and it cannot be led out ---- */

static int in_root(const char *path, int flags, int resolve) {
	struct { uint64_t flags, mode, resolve; } how = {flags | O_CLOEXEC, 0, RESOLVE_IN_ROOT | resolve};
	while (*path == '/') path++;
	return syscall(SYS_OPENAT2, root, *path ? path : ".", &how, sizeof how);
}

static int open_root(const char *path) { return in_root(path, O_PATH, RESOLVE_NO_MAGICLINKS); }

static int parent(char *path, char **base) {   /* cuts the last component off `path` and opens what is before it */
	size_t n = strlen(path);
	char *cut;
	while (n > 1 && path[n - 1] == '/') path[--n] = 0;
	cut = strrchr(path, '/');
	*base = cut ? cut + 1 : path;
	if (cut) *cut = 0;
	return open_root(cut ? path : "");
}

static int make(const char *path, int directory) {   /* opens what is at `path`; makes it, and what leads to it, when missing */
	char at[PATH_MAX], link[PATH_MAX], *base;
	int fd, up, n, error;
	if (snprintf(at, sizeof at, "%s", path) >= (int)sizeof at) return errno = ENAMETOOLONG, -1;
	for (int hops = 0; hops < 64; hops++) {
		if ((fd = open_root(at)) >= 0 || errno != ENOENT) return fd;
		strcpy(link, at);
		up = parent(link, &base);
		if (up < 0 && errno == ENOENT) {
			up = make(link, 1);
		}
		if (up < 0) return -1;
		if (directory ? mkdirat(up, base, 0755) == 0 : (fd = openat(up, base, O_CREAT | O_EXCL | O_CLOEXEC | O_WRONLY, 0644)) >= 0) {
			if (!directory) close(fd);
			close(up);
			continue;
		}
		error = errno;
		n = error == EEXIST ? readlinkat(up, base, at, sizeof at - 1) : -1;   /* a link to nowhere: make what it names */
		close(up);
		if (n < 0) return errno = error, -1;
		at[n] = 0;
		if (at[0] != '/') {
			char to[PATH_MAX];
			strcpy(to, at);
			if (snprintf(at, sizeof at, "%s/%s", base > link ? link : "", to) >= (int)sizeof at) return errno = ENAMETOOLONG, -1;
		}
	}
	return errno = ELOOP, -1;
}

static int is_filesystem(int fd, long magic) {
	struct statfs s;
	if (fstatfs(fd, &s)) return 0;
	return (long)s.f_type == magic;
}

static long expected(const char *path) {   /* what must be below these names, whatever was mounted there */
	return !strncmp(path, "/proc/", 6) ? MAGIC_PROC : !strncmp(path, "/sys/", 5) ? MAGIC_SYSFS : 0;
}

static int move(int tree, int target) { return syscall(SYS_MOVE_MOUNT, tree, "", target, "", MOVE_F_EMPTY | MOVE_T_EMPTY); }

static int attributes(int tree, uint64_t set, uint64_t clear, uint64_t propagation, int userns, int flags) {
	struct { uint64_t set, clear, propagation, userns; } a = {set, clear, propagation, userns < 0 ? 0 : userns};
	if (clear & 0x70 || set & 0x70) a.clear |= 0x70;
	return syscall(SYS_MOUNT_SETATTR, tree, "", AT_EMPTY_PATH | flags, &a, sizeof a);
}

static int filesystem(const char *type, uint64_t attr) {   /* the act's remaining strings are source and key[=value]... */
	char key[256], *value;
	int fs = syscall(SYS_FSOPEN, type, 1), fd, n, error;
	if (fs < 0) return -1;
	if (act.op == OP_FSMOUNT) {
		syscall(SYS_FSCONFIG, fs, FS_STRING, "source", string(0), 0);
		for (uint32_t k = 3; k < act.strs; k++) {
			snprintf(key, sizeof key, "%s", string(0));
			if ((value = strchr(key, '='))) *value++ = 0;
			if (syscall(SYS_FSCONFIG, fs, value ? FS_STRING : FS_FLAG, key, value, 0)) goto wrong;
		}
	}
	if (syscall(SYS_FSCONFIG, fs, FS_CREATE, 0, 0, 0)) goto wrong;
	fd = syscall(SYS_FSMOUNT, fs, 1, attr);
	close(fs);
	return fd;
wrong:
	error = errno;
	if ((n = read(fs, detail, sizeof detail - 1)) > 2) detail[n - 1] = 0, memmove(detail, detail + 2, n - 2);
	close(fs);
	errno = error;
	return -1;
}

static int mount_filesystem(void) {
	const char *type = string(0), *path = string(0);
	int target, tree, result;
	target = make(path, 1);
	if (target < 0) return -1;
	if (in[1]) {
		close(target);
		target = in_root(path, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
		if (target < 0) return explain("the image has no real directory at ", path);
	}
	if ((tree = filesystem(type, in[0])) < 0) return -1;
	result = move(tree, target);
	close(tree);
	close(target);
	return result;
}

static int attach(void) {
	const char *path = string(0);
	int tree = slot(in[0]), target, result;
	struct stat s;
	if (fstat(tree, &s)) return -1;
	if (attributes(tree, in[1] | (in[6] >= 0 ? ATTR_IDMAP : 0), in[2], in[4] & ~(uint64_t)MS_REC, slot(in[6]), 0)) return -1;
	if ((in[3] || in[4] & MS_REC) && attributes(tree, in[3], 0, in[4] & ~(uint64_t)MS_REC, -1, RECURSIVE)) return -1;
	target = in[5] ? open(path, O_PATH | O_CLOEXEC) : make(path, S_ISDIR(s.st_mode));
	if (target < 0) return -1;
	result = move(tree, target);
	close(target);
	close(tree);
	return result;
}

static int mask(const char *path) {
	int target = in_root(path, O_PATH, RESOLVE_NO_SYMLINKS), cover, result;
	struct stat s;
	if (target < 0) return errno == ENOENT || errno == ENOTDIR || errno == EACCES ? 0 : -1;
	if (expected(path) && !is_filesystem(target, expected(path))) return errno = EXDEV, explain("not what the kernel shows there: ", path);
	if (fstat(target, &s)) return -1;
	if (S_ISDIR(s.st_mode)) cover = filesystem("tmpfs", 1);
	else {
		int null = in_root("dev/null", O_PATH, RESOLVE_NO_SYMLINKS);
		if (null < 0 || fstat(null, &s)) return explain("no /dev/null to mask with", "");
		if (!S_ISCHR(s.st_mode) || s.st_rdev != makedev(1, 3)) return errno = EXDEV, explain("/dev/null is not the null device", "");
		cover = syscall(SYS_OPEN_TREE, null, "", AT_EMPTY_PATH | TREE_CLONE | O_CLOEXEC);
		close(null);
	}
	if (cover < 0) return -1;
	result = move(cover, target);
	close(cover);
	close(target);
	return result;
}

static int make_readonly(const char *path) {
	int target = in_root(path, O_PATH, RESOLVE_NO_SYMLINKS), tree, result;
	if (target < 0) return errno == ENOENT ? 0 : -1;
	if (in[1]) return attributes(target, in[0], 0, 0, -1, 0);
	if (expected(path) && !is_filesystem(target, expected(path))) return errno = EXDEV, explain("not what the kernel shows there: ", path);
	tree = syscall(SYS_OPEN_TREE, target, "", AT_EMPTY_PATH | TREE_CLONE | RECURSIVE | O_CLOEXEC);
	if (tree < 0 || attributes(tree, in[0], 0, 0, -1, 0)) return -1;
	result = move(tree, target);
	close(tree);
	close(target);
	return result;
}

static int put(int fd, const char *data, size_t n) {
	ssize_t r = fd < 0 ? -1 : write(fd, data, n);
	return r < 0 ? -1 : (size_t)r == n ? 0 : (errno = EIO, -1);
}

static int write_file(const char *path, const char *data, size_t n) {
	int fd = open(path, O_WRONLY | O_CLOEXEC), r = put(fd, data, n), error = errno;
	if (fd >= 0) close(fd);
	return errno = error, r;
}

static int sysctl(void) {
	uint32_t n;
	const char *path = string(0), *value = string(&n);
	int proc = in_root("proc", O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS), fd, r;
	if (proc < 0 || !is_filesystem(proc, MAGIC_PROC)) return errno = EXDEV, explain("/proc is not procfs", "");
	fd = openat(proc, path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	r = fd >= 0 && !is_filesystem(fd, MAGIC_PROC) ? (errno = EXDEV, -1) : put(fd, value, n);
	close(proc);
	if (fd >= 0) close(fd);
	return r;
}

static int make_node(void) {
	char path[PATH_MAX], *base;
	int up;
	if (snprintf(path, sizeof path, "%s", string(0)) >= (int)sizeof path) return errno = ENAMETOOLONG, -1;
	if ((up = parent(path, &base)) < 0 && (up = make(path, 1)) < 0) return -1;
	if (mknodat(up, base, in[0], makedev(in[1], in[2])) || fchmodat(up, base, in[0] & 07777, 0)) return -1;
	if ((in[3] || in[4]) && fchownat(up, base, in[3], in[4], AT_SYMLINK_NOFOLLOW)) return -1;
	return close(up);
}

static int make_link(void) {
	char path[PATH_MAX], *base;
	const char *target = string(0);
	int up, r;
	if (snprintf(path, sizeof path, "%s", string(0)) >= (int)sizeof path) return errno = ENAMETOOLONG, -1;
	if ((up = parent(path, &base)) < 0 && (up = make(path, 1)) < 0) return -1;
	r = symlinkat(target, up, base);
	close(up);
	return r && errno != EEXIST ? -1 : 0;
}

/* ---- namespaces and the new process ---- */

static int make_user_namespace(void) {
	struct { uint64_t flags, pidfd, child_tid, parent_tid, signal, more[6]; } a = {.flags = CLONE_NEWUSER, .signal = SIGCHLD};
	uint32_t lu, lg;
	const char *uids = string(&lu), *gids = string(&lg);
	char path[64];
	pid_t pid = syscall(SYS_CLONE3, &a, sizeof a);
	int r = -1, error;
	if (pid < 0) return -1;
	if (!pid) for (;;) pause();
	snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
	if (write_file(path, gids, lg)) goto end;
	snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
	if (write_file(path, uids, lu)) goto end;
	snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
	r = keep(in[0], open(path, O_RDONLY | O_CLOEXEC));
end:
	error = errno;
	kill(pid, SIGKILL);   /* our own child, not yet waited for: the pid is its */
	waitpid(pid, 0, 0);
	errno = error;
	return r;
}

static int clone_child(void) {
	struct { uint64_t flags, pidfd, child_tid, parent_tid, signal, stack, size, tls, set_tid, set_size, cgroup; } a = {0};
	int fd = -1, cgroup = slot(in[1]);
	a.flags = (uint64_t)in[0] | CLONE_PARENT | CLONE_PIDFD | (cgroup >= 0 ? 0x200000000ull : 0);
	a.pidfd = (uintptr_t)&fd;
	a.cgroup = cgroup >= 0 ? cgroup : 0;
	child = syscall(SYS_CLONE3, &a, cgroup >= 0 ? sizeof a : 64);
	if (child < 0) return -1;
	if (child == 0) {
		actor = INIT;
		reported = 0;
		return 0;
	}
	close(STATUS);
	return keep(in[2], fd);
}

static int loopback(void) {
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), n = fd < 0 ? -1 : ioctl(fd, SIOCSIFFLAGS, &r);
	close(fd);
	return n;
}

static int terminal(void) {
	struct winsize size = {.ws_row = in[1], .ws_col = in[2]};
	int master = in_root("dev/pts/ptmx", O_RDWR | O_NOCTTY, RESOLVE_NO_SYMLINKS), zero = 0, peer, target, tree;
	if (master < 0 || !is_filesystem(master, MAGIC_DEVPTS)) return explain("no devpts at /dev/pts", "");
	if (ioctl(master, TIOCSPTLCK, &zero) || (peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY)) < 0) return -1;
	if (in[1] && ioctl(master, TIOCSWINSZ, &size)) return -1;
	if (in[3]) {
		tree = syscall(SYS_OPEN_TREE, peer, "", AT_EMPTY_PATH | TREE_CLONE | O_CLOEXEC);
		target = make("dev/console", 0);
		if (tree < 0 || target < 0 || move(tree, target)) return -1;
		close(tree);
		close(target);
	}
	if (ioctl(peer, TIOCSCTTY, 0)) return -1;
	for (int fd = 0; fd < 3; fd++) if (dup2(peer, fd) < 0) return -1;
	close(peer);
	return keep(in[0], master);
}

/* ---- users: passwd(5) and group(5) of the container, read after pivot_root, so all paths are its own ---- */

static ssize_t slurp(const char *path) {
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat s;
	ssize_t n = 0, r = 1;
	text[0] = 0;
	if (fd < 0) return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
	if (fstat(fd, &s) || !S_ISREG(s.st_mode)) return close(fd), errno = EINVAL, explain("not a regular file: ", path);
	while (n < TEXT_MAX && (r = read(fd, text + n, TEXT_MAX - n)) > 0) n += r;
	close(fd);
	text[n] = 0;
	if (r > 0) return errno = EFBIG, explain("larger than 1 MiB: ", path);
	return r < 0 ? -1 : n;
}

static char *fields(char **cursor, char *field[7]) {   /* the next line, split at colons */
	char *line = *cursor, *end;
	if (!line || !*line) return 0;
	end = strchrnul(line, '\n');
	*cursor = *end ? end + 1 : end;
	*end = 0;
	for (int k = 0; k < 7; k++) {
		field[k] = line;
		if ((end = k < 6 ? strchr(line, ':') : 0)) *end = 0, line = end + 1;
		else line = strchr(line, 0);
	}
	return field[0];
}

static int number(const char *s, uint32_t *n) {
	char *end;
	unsigned long long v = strtoull(s, &end, 10);
	if (*s < '0' || *s > '9' || *end || v > INT_MAX) return 0;
	*n = v;
	return 1;
}

static int add_group(gid_t gid) {
	for (int k = 0; k < user.count; k++) if (user.gids[k] == gid) return 0;
	if (user.count == GROUPS_MAX) return errno = E2BIG, -1;
	user.gids[user.count++] = gid;
	return 0;
}

static int member(char *list, const char *name) {
	for (char *save, *m = strtok_r(list, ",", &save); m; m = strtok_r(0, ",", &save)) if (!strcmp(m, name)) return 1;
	return 0;
}

static int look_up_group(const char *wanted, gid_t *gid) {
	char *cursor = text, *f[7];
	uint32_t n = 0, id;
	int numeric = number(wanted, &n);
	if (slurp("/etc/group") < 0) return -1;
	while (fields(&cursor, f)) if (number(f[2], &id) && (!strcmp(f[0], wanted) || (numeric && id == n))) return *gid = id, 0;
	if (numeric) return *gid = n, 0;
	errno = EINVAL;
	return explain("no matching entries in group file for ", wanted);
}

static int look_up(void) {
	char name[512], matched[512] = "", *group, *cursor = text, *f[7];
	uint32_t n = 0, id, gid;
	int numeric, named;
	if (snprintf(name, sizeof name, "%s", string(0)) >= (int)sizeof name) return errno = ENAMETOOLONG, -1;
	user.uid = in[0];
	user.gid = in[1];
	if ((group = strchr(name, ':'))) *group++ = 0;
	named = *name;
	if (!named) snprintf(name, sizeof name, "%u", user.uid);   /* the spec's numbers count; only HOME is looked up */
	strcpy(user.home, "/");
	if (slurp("/etc/passwd") < 0) return -1;
	numeric = number(name, &n);
	while (fields(&cursor, f)) {
		if (!number(f[2], &id) || (strcmp(f[0], name) && !(numeric && id == n))) continue;
		user.uid = id;
		if (named && number(f[3], &gid)) user.gid = gid;
		snprintf(matched, sizeof matched, "%s", f[0]);
		if (*f[5]) snprintf(user.home, sizeof user.home, "%s", f[5]);
		break;
	}
	if (!*matched && !numeric) return errno = EINVAL, explain("no matching entries in passwd file for ", name);
	if (!*matched) user.uid = n;
	if (group && *group && look_up_group(group, &user.gid)) return -1;
	if (named && add_group(user.gid)) return -1;
	if (named && *matched && !(group && *group)) {
		cursor = text;
		if (slurp("/etc/group") < 0) return -1;
		while (fields(&cursor, f)) if (number(f[2], &id) && member(f[3], matched) && add_group(id)) return -1;
	}
	for (uint32_t k = 1; k < act.strs; k++) if (look_up_group(string(0), &gid) || add_group(gid)) return -1;
	return 0;
}

static int become(void) {
	struct stat s;
	umask(in[0]);
	for (int fd = 0; fd < 3; fd++)   /* so that the user can open /dev/stdout again; the null device stays root's */
		if (!fstat(fd, &s) && s.st_uid != user.uid && (S_ISFIFO(s.st_mode) || (S_ISCHR(s.st_mode) && major(s.st_rdev) >= 136)))
			if (fchown(fd, user.uid, -1) && errno != EPERM && errno != EINVAL) return -1;
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) || setgroups(user.count, user.gids)) return -1;
	return setresgid(user.gid, user.gid, user.gid) || setresuid(user.uid, user.uid, user.uid) ? -1 : 0;
}

static int drop_bounding(void) {
	for (int c = 0; c < 64; c++)
		if (!(in[0] >> c & 1) && prctl(PR_CAPBSET_DROP, c, 0, 0, 0)) return errno == EINVAL && c > 30 ? 0 : -1;
	return 0;
}

static int set_capabilities(void) {
	struct { uint32_t version; int pid; } head = {0x20080522, 0};
	uint32_t data[6];
	for (int k = 0; k < 2; k++) for (int set = 0; set < 3; set++) data[3 * k + set] = (uint64_t)in[set] >> 32 * k;
	if (syscall(SYS_capset, &head, data) || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)) return -1;
	for (int c = 0; c < 64; c++) if (in[3] >> c & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, c, 0, 0)) return -1;
	return 0;
}

static int load_filter(void) {
	uint32_t n;
	const char *code = string(&n);
	struct { unsigned short length; const void *filter; } program = {n / 8, code};
	return syscall(SYS_seccomp, 1, in[0], &program);
}

static int set_limit(void) {
	struct rlimit r = {in[1], in[2]}, present;
	if (!setrlimit(in[0], &r)) return 0;
	if (!in[3] || errno != EPERM || getrlimit(in[0], &present)) return -1;
	if (r.rlim_max > present.rlim_max) r.rlim_max = present.rlim_max;   /* a default, lowered to what the host can give */
	if (r.rlim_cur > r.rlim_max) r.rlim_cur = r.rlim_max;
	return setrlimit(in[0], &r);
}

static int change_directory(const char *path) {
	char at[PATH_MAX];
	if (in[0] && changed_directory) return 0;
	if (chdir(path)) return !in[0] && errno == EACCES ? 0 : -1;
	if (syscall(SYS_getcwd, at, sizeof at) < 0 || at[0] != '/') return errno = EXDEV, explain("outside of the container's root: ", path);
	return changed_directory = 1, 0;
}

/* ---- the end: PID 1 as a reaper, or the program itself ---- */

static int search(char **args, char **env) {
	const char *dirs = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *d;
	char path[PATH_MAX];
	int denied = 0;
	if (!*args[0]) return errno = ENOENT, -1;
	if (strchr(args[0], '/')) {
		execve(args[0], args, env);
		if (errno == ENOENT && !faccessat(AT_FDCWD, args[0], F_OK, 0)) errno = ENOEXEC, explain("its interpreter is missing", "");
		return -1;
	}
	for (char **e = env; *e; e++) if (!strncmp(*e, "PATH=", 5)) dirs = *e + 5;
	for (d = dirs; *d;) {
		int n = strcspn(d, ":");
		struct stat s;
		if (snprintf(path, sizeof path, "%.*s/%s", n, n ? d : ".", args[0]) < (int)sizeof path) {
			execve(path, args, env);
			if (errno == EACCES && !stat(path, &s) && !S_ISDIR(s.st_mode)) denied = 1;
			else if (errno == ENOENT && !faccessat(AT_FDCWD, path, F_OK, 0)) return errno = ENOEXEC, explain("its interpreter is missing: ", path);
			else if (errno != ENOENT && errno != ENOTDIR && errno != EACCES) return -1;
		}
		d += n + (d[n] == ':');
	}
	return errno = denied ? EACCES : ENOENT, explain("not found in $PATH", "");
}

static void reap(pid_t main_child) {
	sigset_t all;
	siginfo_t s;
	int status;
	pid_t pid;
	sigfillset(&all);
	close(STATUS);
	close(CONTROL);
	prctl(PR_SET_NAME, "cloche-init", 0, 0, 0);
	for (;;) {
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (pid == main_child) _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
		if (sigwaitinfo(&all, &s) > 0 && s.si_signo != SIGCHLD) kill(main_child, s.si_signo);   /* not yet waited for */
	}
}

static int execute(void) {
	uint32_t argc = in[0], count = act.strs;
	char **v = calloc((size_t)count + 4, sizeof *v), **args = v, **env, home[PATH_MAX + 8];
	if (!v || argc < 1 || argc > count) return errno = EINVAL, -1;
	for (uint32_t k = 0; k < argc; k++) args[k] = (char *)string(0);
	env = args + argc + 1;
	for (uint32_t k = 0; k < count - argc; k++) env[k] = (char *)string(0);
	snprintf(home, sizeof home, "HOME=%s", user.home);
	if (in[2]) env[count - argc] = home;
	if (in[1]) {
		sigset_t all, none;
		pid_t pid;
		sigfillset(&all);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &all, 0);
		if ((pid = fork()) < 0) return -1;
		if (pid) reap(pid);
		setpgid(0, 0);
		if (isatty(0)) ioctl(0, TIOCSPGRP, &(int){getpid()});
		sigprocmask(SIG_SETMASK, &none, 0);
	}
	record(STARTED, 0);
	flush(-1);
	return search(args, env);
}

static int report_token(void) {
	record(TOKEN, actor == STAGE ? child : getpid());
	if (flush(in[0] < 0 ? -1 : slot(in[0]))) _exit(125);   /* nobody is left who could want to know */
	return 0;
}

static int gate(void) {
	char c;
	ssize_t n;
	while ((n = recv(CONTROL, &c, 1, 0)) < 0 && errno == EINTR);
	channel = STATUS;
	if (n == 1) return 0;
	record(ABORTED, 0);
	flush(-1);
	_exit(125);
}

static int do_act(void) {
	uint32_t n;
	const char *s, *t;
	switch (act.op) {
	case OP_REPORT: return report_token();
	case OP_GATE: return gate();
	case OP_OPEN: return keep(in[0], open(string(0), (in[1] & O_DIRECTORY ? O_RDONLY | O_DIRECTORY : O_WRONLY) | O_CLOEXEC));
	case OP_WRITE: s = string(&n); return put(slot(in[0]), s, n);
	case OP_SETNS: return setns(slot(in[0]), in[1]);
	case OP_USERNS: return make_user_namespace();
	case OP_ENTERUSER: return setns(slot(in[0]), in[1]) || setresgid(0, 0, 0) || setresuid(0, 0, 0) ? -1 : 0;
	case OP_CLONE: return clone_child();
	case OP_UNSHARE: return unshare(in[0]);
	case OP_HOSTNAME: s = string(&n); return sethostname(s, n);
	case OP_DOMAINNAME: s = string(&n); return setdomainname(s, n);
	case OP_LOOPBACK: return loopback();
	case OP_PROPAGATION: return mount(0, string(0), 0, in[0], 0);
	case OP_OVERLAY: if (chdir(string(0))) return -1; s = string(0); t = string(0); return mount("overlay", s, "overlay", 0, t);
	case OP_OPENTREE: return keep(in[0], syscall(SYS_OPEN_TREE, AT_FDCWD, string(0), TREE_CLONE | O_CLOEXEC | (in[1] ? RECURSIVE : 0)));
	case OP_ATTACH: return attach();
	case OP_ROOT: if (chdir(string(0))) return -1; return root = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	case OP_FSMOUNT: return mount_filesystem();
	case OP_MKNOD: return make_node();
	case OP_SYMLINK: return make_link();
	case OP_MKDIR: { int fd = make(string(0), 1); return fd < 0 ? -1 : close(fd); }
	case OP_PIVOT: return syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/") ? -1 : 0;
	case OP_MASK: return mask(string(0));
	case OP_READONLY: return make_readonly(string(0));
	case OP_SYSCTL: return sysctl();
	case OP_SETSID: return setsid();
	case OP_KEYRING: return syscall(SYS_keyctl, 1, string(0)) < 0 && errno != ENOSYS && errno != EOPNOTSUPP ? -1 : 0;
	case OP_PUT: s = string(0); t = string(&n); return write_file(s, t, n);
	case OP_TERMINAL: return terminal();
	case OP_LOOKUP: return look_up();
	case OP_USER: return become();
	case OP_BOUNDING: return drop_bounding();
	case OP_CAPS: return set_capabilities();
	case OP_NNP: return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	case OP_SECCOMP: return load_filter();
	case OP_RLIMIT: return set_limit();
	case OP_CHDIR: return change_directory(string(0));
	case OP_EXEC: return execute();
	}
	return errno = ENOSYS, -1;
}

static void seal_myself(char **argv) {   /* CVE-2019-5736: what enters a container is a copy in memory that nobody can write */
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), seals = fcntl(self, F_GET_SEALS), copy;
	struct stat s;
	off_t at = 0;
	if (seals >= 0 && (seals & F_SEAL_WRITE)) { close(self); return; }
	copy = memfd_create("bell", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (self < 0 || copy < 0 || fstat(self, &s)) fail(errno, 125);
	while (at < s.st_size) if (sendfile(copy, self, &at, s.st_size - at) <= 0) fail(errno, 125);
	if (fcntl(copy, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)) fail(errno, 125);
	syscall(SYS_execveat, copy, "", argv, (char *[]){0}, AT_EMPTY_PATH);
	fail(errno, 125);
}

int main(int argc, char **argv) {
	struct { uint32_t magic, version, acts, size; } head;
	struct stat s;
	const char *p, *end;
	(void)argc;
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (fcntl(PLAN, F_GETFD) < 0) return dprintf(2, "bell: no plan on descriptor %d: cloche starts this program, people do not\n", PLAN), 125;
	seal_myself(argv);
	syscall(SYS_CLOSE_RANGE, 3, ~0u, 4);   /* CLOSE_RANGE_CLOEXEC: nothing of this side reaches the program */
	for (int k = 0; k < FLAT_SLOTS; k++) slots[k] = FIRST_SLOT + k;
	if (fstat(PLAN, &s)) fail(errno, 125);
	p = mmap(0, s.st_size ? s.st_size : 1, PROT_READ, MAP_PRIVATE, PLAN, 0);
	if (p == MAP_FAILED || (size_t)s.st_size < sizeof head) fail(EINVAL, 125);
	memcpy(&head, p, sizeof head);
	if (head.magic != FLAT_MAGIC || head.version != FLAT_VERSION || head.size != (size_t)s.st_size) fail(EPROTO, 125);
	end = p + head.size;
	for (p += sizeof head; p < end;) {
		if (!(p = parse(p, end))) fail(EPROTO, 125);
		if (act.actor != actor) continue;
		if (do_act() < 0) fail(errno, act.op != OP_EXEC ? 125 : errno == ENOENT ? 127 : 126);
		record(DONE, 0);
	}
	return actor == STAGE ? 0 : 125;
}
