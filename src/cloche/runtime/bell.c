/* bell: does the container's side of a plan, from clone to exec. It reads a flat plan (see cloche/step/flat.py), does what it
 * says in order and reports; it holds no policy. Descriptors at start: 0 1 2 the container's own, 3 control (SOCK_SEQPACKET),
 * 4 status (pipe), 5 the plan, from 6 on what the plan's StartBell names. One process is the "stage" (actor 1); OP_CLONE makes
 * the other (actor 2), which becomes the container's program. */
#define _GNU_SOURCE
#include <dirent.h>
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
enum { RESOLVE_NO_MAGICLINKS = 2, RESOLVE_NO_SYMLINKS = 4, RESOLVE_BENEATH = 8, RESOLVE_IN_ROOT = 16 };
enum { SYS_OPEN_TREE = 428, SYS_MOVE_MOUNT, SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT, SYS_PIDFD_OPEN = 434, SYS_CLONE3, SYS_CLOSE_RANGE, SYS_OPENAT2, SYS_FACCESSAT2 = 439, SYS_MOUNT_SETATTR = 442 };
enum { TREE_CLONE = 1, MOVE_F_EMPTY = 4, MOVE_T_EMPTY = 0x40, FS_FLAG = 0, FS_STRING = 1, FS_CREATE = 6, ATTR_IDMAP = 0x100000, RECURSIVE = 0x8000 };
enum { TEXT_MAX = 1 << 20, GROUPS_MAX = 256 };

struct act { uint16_t op, actor, number, ints; uint32_t strs, size; };
struct report { uint8_t kind, actor; uint16_t number; int32_t value; uint64_t ns; };

static struct act act;            /* the act being done */
static int64_t in[8];             /* its integers */
static const char *next_string;   /* its strings that have not been taken yet */
static int slots[FLAT_SLOTS], root = -1, actor = STAGE, channel = CONTROL, changed_directory, filtered;
static uint8_t held[FLAT_SLOTS];  /* slots that stay open when the others are closed */
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
	union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr head; } c = {
		.head = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
	struct msghdr m = {.msg_iov = v, .msg_iovlen = 2, .msg_control = passed < 0 ? 0 : &c, .msg_controllen = passed < 0 ? 0 : sizeof c.space};
	memcpy(CMSG_DATA(&c.head), &passed, sizeof passed);
	reported = 0;
	return (channel == CONTROL && !filtered ? sendmsg(CONTROL, &m, MSG_NOSIGNAL) : writev(channel, v, 2)) < 0 ? -1 : 0;
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

static int take(int64_t n) {   /* from the table: who takes it closes it */
	int fd = slot(n);
	if (fd >= 0) slots[n] = -1;
	return fd;
}

static int keep(int64_t n, int fd) {
	if (fd < 0 || n < 0 || n >= FLAT_SLOTS) return -1;
	slots[n] = fd;
	return 0;
}

static int closing(int fd, int result) {   /* `result` and its errno, now that `fd` is done with */
	int error = errno;
	if (fd >= 0) close(fd);
	return errno = error, result;
}

/* ---- paths inside the root: only the kernel resolves them, and it cannot be led out ---- */

static int open_within(int at, const char *path, int flags, int resolve) {   /* EAGAIN: anything anywhere was renamed while `..` was resolved */
	struct { uint64_t flags, mode, resolve; } how = {flags | O_CLOEXEC, 0, resolve};
	int fd, tries = 0;
	while ((fd = syscall(SYS_OPENAT2, at, path, &how, sizeof how)) < 0 && errno == EAGAIN && tries++ < 1000);
	return fd;
}

static int in_root(const char *path, int flags, int resolve) {
	while (*path == '/') path++;
	return open_within(root, *path ? path : ".", flags, RESOLVE_IN_ROOT | resolve);
}

static int open_root(const char *path) { return in_root(path, O_PATH, RESOLVE_NO_MAGICLINKS); }

static int shown(const char *path, int flags) {   /* opens, through no link, what the kernel itself must show at `path` */
	static const struct { const char *below; long magic; } kernel[] = {{"/proc/", 0x9fa0}, {"/sys/", 0x62656572}, {"/dev/pts/", 0x1cd1}};
	int fd = in_root(path, flags, RESOLVE_NO_SYMLINKS);
	struct statfs s;
	for (int k = 0; fd >= 0 && k < 3; k++) {
		if (strncmp(path, kernel[k].below, strlen(kernel[k].below))) continue;
		if (fstatfs(fd, &s) || (long)s.f_type != kernel[k].magic) return close(fd), errno = EXDEV, explain("not what the kernel shows there: ", path);
	}
	return fd;
}

static int make(const char *path, int directory) {   /* opens what is at `path`; makes it, and what leads to it, when missing */
	char at[PATH_MAX], before[PATH_MAX], base[PATH_MAX], link[PATH_MAX];
	size_t from = 0, to;   /* at[from..to) is the name that is looked at; all before it is there */
	int fd, up, n, last;
	if (snprintf(at, sizeof at, "%s", path) >= PATH_MAX) return errno = ENAMETOOLONG, -1;
	for (int links = 0; links < 64;) {
		from += strspn(at + from, "/");
		to = from + strcspn(at + from, "/");
		last = !at[to + strspn(at + to, "/")];
		snprintf(base, sizeof base, "%.*s", (int)(to - from), at + from);
		snprintf(before, sizeof before, "%.*s", (int)to, at);
		if ((fd = open_root(before)) >= 0) {
			if (last) return fd;
			close(fd);
			from = to;
			continue;
		}
		if (errno != ENOENT) return -1;
		before[from] = 0;
		if ((up = open_root(before)) < 0) return -1;
		fd = directory || !last ? mkdirat(up, base, 0755) : openat(up, base, O_CREAT | O_EXCL | O_CLOEXEC | O_WRONLY, 0644);
		n = fd < 0 && errno == EEXIST ? readlinkat(up, base, link, sizeof link - 1) : -1;
		close(up);
		if (fd > 0) close(fd);
		if (fd >= 0) continue;   /* it is opened in the next round */
		if (n < 0) return -1;
		link[n] = 0;   /* a link to nowhere: what it names is made */
		if (snprintf(base, sizeof base, "%s/%s%s", *link == '/' ? "" : before, link, at + to) >= PATH_MAX) return errno = ENAMETOOLONG, -1;
		strcpy(at, base);
		from = 0;
		links++;
	}
	return errno = ELOOP, -1;
}

static int parent(const char *path, const char **base) {   /* opens, or makes, the directory that `path` is in */
	static char at[PATH_MAX];
	char *cut;
	if (snprintf(at, sizeof at, "%s", path) >= PATH_MAX) return errno = ENAMETOOLONG, -1;
	cut = strrchr(at, '/');
	*base = cut ? cut + 1 : at;
	if (cut) *cut = 0;
	return make(cut ? at : "", 1);
}

static int place(int tree, int target) {   /* a detached mount onto its target; both are closed */
	int r = tree < 0 || target < 0 ? -1 : syscall(SYS_MOVE_MOUNT, tree, "", target, "", MOVE_F_EMPTY | MOVE_T_EMPTY);
	return closing(tree, closing(target, r));
}

static int attributes(int tree, uint64_t set, uint64_t clear, uint64_t propagation, int userns, int flags) {
	struct { uint64_t set, clear, propagation, userns; } a = {set, clear, propagation, userns < 0 ? 0 : userns};
	if (clear & 0x70 || set & 0x70) a.clear |= 0x70;
	return syscall(SYS_MOUNT_SETATTR, tree, "", AT_EMPTY_PATH | flags, &a, sizeof a);
}

static int filesystem(const char *type, uint64_t attr) {   /* the act's remaining strings are source and key[=value]... */
	char key[256], *value;
	int fs = syscall(SYS_FSOPEN, type, 1), bad = 0, error, n;
	if (fs < 0) return -1;
	if (act.op == OP_FSMOUNT) bad = syscall(SYS_FSCONFIG, fs, FS_STRING, "source", string(0), 0);
	for (uint32_t k = 3; act.op == OP_FSMOUNT && !bad && k < act.strs; k++) {
		if (snprintf(key, sizeof key, "%s", string(0)) >= (int)sizeof key) return close(fs), errno = E2BIG, -1;
		if ((value = strchr(key, '='))) *value++ = 0;
		bad = syscall(SYS_FSCONFIG, fs, value ? FS_STRING : FS_FLAG, key, value, 0);
	}
	if (!bad && !(bad = syscall(SYS_FSCONFIG, fs, FS_CREATE, 0, 0, 0))) return closing(fs, syscall(SYS_FSMOUNT, fs, 1, attr));
	error = errno;   /* "e what is wrong", in the file system's own words */
	if ((n = read(fs, detail, sizeof detail - 1)) > 2) detail[n - 1] = 0, memmove(detail, detail + 2, n - 2);
	return errno = error, closing(fs, -1);
}

static int mount_filesystem(void) {
	const char *type = string(0), *path = string(0);
	int target = make(path, 1);
	if (target >= 0 && in[1]) {
		close(target);
		if ((target = in_root(path, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS)) < 0) return explain("the image has no real directory at ", path);
	}
	return target < 0 ? -1 : place(filesystem(type, in[0]), target);
}

static int open_tree(void) {   /* a detached copy of a mount; what is below a directory that containers write: no link leads out */
	const char *path = string(0), *below = act.strs > 1 ? string(0) : "";
	int recursive = in[1] ? RECURSIVE : 0, at = open(path, O_PATH | O_CLOEXEC), tree;
	if (at >= 0 && *below && (at = closing(at, open_within(at, below, O_PATH, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS))) < 0) return explain("within the volume: ", below);
	if (at < 0) return -1;
	tree = closing(at, syscall(SYS_OPEN_TREE, at, "", AT_EMPTY_PATH | TREE_CLONE | O_CLOEXEC | recursive));
	if (tree >= 0 && in[2] >= 0 && attributes(tree, ATTR_IDMAP, 0, 0, slot(in[2]), recursive)) return closing(tree, -1);
	return keep(in[0], tree);
}

static int attach(void) {
	const char *path = string(0);
	int tree = take(in[0]), target;
	uint64_t propagation = in[4] & ~(uint64_t)MS_REC;
	struct stat s;
	struct statfs f;
	if (fstat(tree, &s) || attributes(tree, in[1] | (in[6] >= 0 ? ATTR_IDMAP : 0), in[2], propagation, slot(in[6]), 0)) return -1;
	if ((in[3] || in[4] & MS_REC) && attributes(tree, in[3], 0, propagation, -1, RECURSIVE)) return -1;
	if (!in[5] && !strcmp(path + strspn(path, "/"), "proc") && (fstatfs(tree, &f) || f.f_type != 0x9fa0))
		return errno = EXDEV, explain("only what the kernel shows may be mounted on ", path);
	target = in[5] ? open(path, O_PATH | O_CLOEXEC) : make(path, S_ISDIR(s.st_mode));
	if (target >= 0 && !in[5] && strncmp(path, "/proc/", 6) && !fstatfs(target, &f) && f.f_type == 0x9fa0)
		return errno = EXDEV, explain("a link leads into /proc: ", path);   /* where a mount would hide what is written there */
	return place(tree, target);
}

static int mask(const char *path) {   /* the directories share one empty file system: each costs the kernel room in every memory cgroup */
	static int empty = -1;
	int target = shown(path, O_PATH), null;
	struct stat s;
	if (target < 0) return errno == ENOENT || errno == ENOTDIR || errno == EACCES ? 0 : -1;
	if (fstat(target, &s)) return -1;
	if (S_ISDIR(s.st_mode) && empty >= 0) return place(syscall(SYS_OPEN_TREE, empty, "", AT_EMPTY_PATH | TREE_CLONE | O_CLOEXEC), target);
	if (S_ISDIR(s.st_mode)) return place(filesystem("tmpfs", 1), target) || (empty = in_root(path, O_PATH, RESOLVE_NO_SYMLINKS)) < 0 ? -1 : 0;
	if ((null = in_root("dev/null", O_PATH, RESOLVE_NO_SYMLINKS)) < 0 || fstat(null, &s)) return explain("no /dev/null to mask with", "");
	if (!S_ISCHR(s.st_mode) || s.st_rdev != makedev(1, 3)) return errno = EXDEV, explain("/dev/null is not the null device", "");
	return place(closing(null, syscall(SYS_OPEN_TREE, null, "", AT_EMPTY_PATH | TREE_CLONE | O_CLOEXEC)), target);
}

static int make_readonly(const char *path) {
	int target = in[1] ? in_root(path, O_PATH, RESOLVE_NO_SYMLINKS) : shown(path, O_PATH), tree;
	if (target < 0) return errno == ENOENT && !in[1] ? 0 : -1;
	if (in[1]) return closing(target, attributes(target, in[0], 0, 0, -1, 0));
	tree = syscall(SYS_OPEN_TREE, target, "", AT_EMPTY_PATH | TREE_CLONE | RECURSIVE | O_CLOEXEC);
	if (tree < 0 || attributes(tree, in[0], 0, 0, -1, 0)) return -1;
	return place(tree, target);
}

static int put(int fd, const char *data, size_t n) {   /* all of it, or an error; the file is closed */
	ssize_t r = fd < 0 ? -1 : write(fd, data, n);
	return closing(fd, r < 0 ? -1 : (size_t)r == n ? 0 : (errno = EIO, -1));
}

static int make_node(void) {   /* the umask is 0 until the program's own is set: no second call that could meet another file */
	const char *base;
	int up = parent(string(0), &base), r;
	struct stat s;
	r = up < 0 ? -1 : mknodat(up, base, in[0], makedev(in[1], in[2]));
	if (r && errno == EEXIST && up >= 0) {   /* the one that was asked for is as good */
		if (fstatat(up, base, &s, AT_SYMLINK_NOFOLLOW)) return closing(up, -1);
		if ((s.st_mode & S_IFMT) == (in[0] & S_IFMT) && s.st_rdev == makedev(in[1], in[2])) return closing(up, 0);
		return errno = EEXIST, closing(up, explain("something else is there: ", base));
	}
	if (!r && (in[3] || in[4])) r = fchownat(up, base, in[3], in[4], AT_SYMLINK_NOFOLLOW);
	return closing(up, r);
}

static int make_link(void) {
	const char *target = string(0), *base;
	int up = parent(string(0), &base), r = up < 0 ? -1 : symlinkat(target, up, base);
	return closing(up, r && errno == EEXIST && up >= 0 ? 0 : r);
}

/* ---- namespaces and the new process ---- */

static int of_process(pid_t pid, const char *name, int flags) {
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
	return open(path, flags | O_CLOEXEC);
}

static int make_user_namespace(void) {
	struct { uint64_t flags, pidfd, child_tid, parent_tid, signal, more[6]; } a = {.flags = CLONE_NEWUSER, .signal = SIGCHLD};
	uint32_t lu, lg;
	const char *uids = string(&lu), *gids = string(&lg);
	pid_t pid = syscall(SYS_CLONE3, &a, sizeof a);
	int r, error;
	if (pid < 0) return -1;
	if (!pid) for (;;) pause();
	r = put(of_process(pid, "gid_map", O_WRONLY), gids, lg) || put(of_process(pid, "uid_map", O_WRONLY), uids, lu);
	if (!r) r = keep(in[0], of_process(pid, "ns/user", O_RDONLY));
	error = errno;
	kill(pid, SIGKILL);   /* our own child, not yet waited for: the pid is its */
	waitpid(pid, 0, 0);
	return errno = error, -!!r;
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
		if (cgroup >= 0 && close(take(in[1]))) return -1;   /* a directory of the host: whoever may trace us in there could walk out through it */
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
	int master = shown("/dev/pts/ptmx", O_RDWR | O_NOCTTY), zero = 0, peer, target;
	if (master < 0 || ioctl(master, TIOCSPTLCK, &zero) || (peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY)) < 0) return -1;
	if (in[1] && ioctl(master, TIOCSWINSZ, &size)) return -1;
	if (in[3]) {
		if ((target = make("dev/console", 0)) < 0 || close(target)) return -1;
		if ((target = in_root("dev/console", O_PATH, RESOLVE_NO_SYMLINKS)) < 0) return explain("a link is where the console goes: ", "/dev/console");
		if (place(syscall(SYS_OPEN_TREE, peer, "", AT_EMPTY_PATH | TREE_CLONE | O_CLOEXEC), target)) return -1;
	}
	if (ioctl(peer, TIOCSCTTY, 0)) return -1;
	for (int fd = 0; fd < 3; fd++) if (dup2(peer, fd) < 0) return -1;
	close(peer);
	return keep(in[0], master);
}

static int close_others(void) {   /* CVE-2024-21626: what stays open can be walked through, as /proc/self/fd/N/../.. */
	int from = PLAN, next;
	root = -1;
	for (int k = 0; k < FLAT_SLOTS; k++) if (k != in[0] && !held[k]) slots[k] = -1;
	do {   /* what lies between two that are kept */
		next = INT_MAX;
		for (int k = 0; k < FLAT_SLOTS; k++) if (slots[k] >= from && slots[k] < next) next = slots[k];
		if (next > from && syscall(SYS_CLOSE_RANGE, from, next == INT_MAX ? ~0u : (unsigned)next - 1, 0)) return -1;
		from = next + 1u;
	} while (next != INT_MAX);
	return 0;
}

static int hand_on(void) {   /* the program's own descriptors, from 3 on; the reports leave through another number */
	int moved = fcntl(channel, F_DUPFD_CLOEXEC, CONTROL + in[1]);
	if (moved < 0) return -1;
	channel = moved;
	for (int k = 0; k < in[1]; k++) if (dup2(slot(in[0] + k), CONTROL + k) < 0) return -1;
	return 0;
}

static int onto_copy(void) {   /* a mount that came into a user namespace is locked; a copy over it may become the root */
	int tree = syscall(SYS_OPEN_TREE, AT_FDCWD, ".", TREE_CLONE | RECURSIVE | O_CLOEXEC), here = open(".", O_PATH | O_CLOEXEC);
	if (tree < 0 || here < 0 || syscall(SYS_MOVE_MOUNT, tree, "", here, "", MOVE_F_EMPTY | MOVE_T_EMPTY)) return -1;
	close(here);
	return fchdir(root = tree);
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

static int fields(char **cursor, char *field[6]) {   /* the next line, split at colons */
	char *line = strsep(cursor, "\n");
	if (!line) return 0;
	for (int k = 0; k < 6; k++) field[k] = line ? strsep(&line, ":") : "";
	return 1;
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

static int find(const char *path, const char *wanted, char *f[6]) {   /* the first line of this name or number: 1; there is none: 0 */
	char *cursor = text;
	uint32_t n = 0, id;
	int numeric = number(wanted, &n);   /* CVE-2016-3697: a number is never somebody's name */
	if (slurp(path) < 0) return -1;
	while (fields(&cursor, f)) if (number(f[2], &id) && (numeric ? id == n : !strcmp(f[0], wanted))) return 1;
	return 0;
}

static int look_up_group(const char *wanted, gid_t *gid) {
	char *f[6];
	int found = find("/etc/group", wanted, f);
	if (found < 0 || number(found ? f[2] : wanted, gid)) return found < 0 ? -1 : 0;
	return errno = EINVAL, explain("no matching entries in group file for ", wanted);
}

static int look_up(void) {
	char name[512], matched[512] = "", *group, *cursor = text, *f[6];
	uint32_t id, gid;
	int found, named;
	if (snprintf(name, sizeof name, "%s", string(0)) >= (int)sizeof name) return errno = ENAMETOOLONG, -1;
	user.uid = in[0];
	user.gid = in[1];
	if ((group = strchr(name, ':'))) *group++ = 0;
	if (!(named = *name)) snprintf(name, sizeof name, "%u", user.uid);   /* the spec's numbers count; only HOME is looked up */
	if ((found = find("/etc/passwd", name, f)) < 0) return -1;
	if (named && !number(found ? f[2] : name, &user.uid)) return errno = EINVAL, explain("no matching entries in passwd file for ", name);
	if (named && found) number(f[3], &user.gid);
	if (found) snprintf(matched, sizeof matched, "%s", f[0]);
	snprintf(user.home, sizeof user.home, "%s", found && *f[5] ? f[5] : "/");
	if (group && *group && look_up_group(group, &user.gid)) return -1;
	if (named && add_group(user.gid)) return -1;
	if (named && found && !(group && *group)) {
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
		if (!fstat(fd, &s) && s.st_uid != user.uid && (S_ISFIFO(s.st_mode) || (S_ISCHR(s.st_mode) && major(s.st_rdev) / 8 == 136 / 8)))
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
	int r;
	const char *code = string(&n);
	struct { uint16_t length; const void *filter; } program = {n / 8, code};
	if (n % 8 || n / 8 > UINT16_MAX) return errno = EINVAL, -1;   /* never a part of a filter */
	filtered = 1;
	r = syscall(SYS_seccomp, 1, in[0], &program);
	return in[0] & 8 && r >= 0 ? r == PLAN ? 0 : (errno = EBADF, -1) : r;   /* a listener: the host takes it by this number */
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

static int try(const char *path, char **args, char **env) {
	execve(path, args, env);
	if (errno == ENOENT && !faccessat(AT_FDCWD, path, F_OK, 0)) errno = ENOEXEC, explain("its interpreter is missing", "");
	return -1;
}

static int search(char **args, char **env) {
	const char *dirs = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	char path[PATH_MAX];
	struct stat s;
	int n, denied = 0;
	if (!*args[0] || strchr(args[0], '/')) return try(args[0], args, env);
	for (char **e = env; *e; e++) if (!strncmp(*e, "PATH=", 5)) dirs = *e + 5;
	for (const char *d = dirs; *d; d += n + (d[n] == ':')) {
		n = strcspn(d, ":");
		if (snprintf(path, sizeof path, "%.*s/%s", n, n ? d : ".", args[0]) >= (int)sizeof path) continue;
		try(path, args, env);
		if (errno == EACCES) denied |= !stat(path, &s) && !S_ISDIR(s.st_mode);
		else if (errno != ENOENT && errno != ENOTDIR) return -1;
	}
	return errno = denied ? EACCES : ENOENT, explain("executable file not found in $PATH", "");
}

static int find_program(void) {   /* what execve will find, while there is somebody who can be told that it finds nothing */
	const char *name = string(0), *dirs = string(0);
	char path[PATH_MAX];
	struct stat s;
	int n, denied = 0;
	if (strchr(name, '/') && !stat(name, &s) && S_ISDIR(s.st_mode)) return errno = EACCES, explain("permission denied: it is a directory", "");
	if (strchr(name, '/')) return syscall(SYS_FACCESSAT2, AT_FDCWD, name, X_OK, AT_EACCESS);
	for (const char *d = dirs; *d && *name; d += n + (d[n] == ':')) {
		n = strcspn(d, ":");
		if (snprintf(path, sizeof path, "%.*s/%s", n, n ? d : ".", name) >= (int)sizeof path) continue;
		if (stat(path, &s) || S_ISDIR(s.st_mode)) continue;
		if (!syscall(SYS_FACCESSAT2, AT_FDCWD, path, X_OK, AT_EACCESS)) return 0;
		denied |= errno == EACCES;
	}
	return errno = denied ? EACCES : ENOENT, denied ? -1 : explain("executable file not found in $PATH", "");
}

static int run_hook(void) {   /* before and after of the state around our pid, path, arguments, environment */
	const char *before = string(0), *after = string(0), *path = string(0);
	uint32_t argc = in[1], count = act.strs - 3;
	char **v = calloc((size_t)count + 2, sizeof *v), **args = v, **env = v + argc + 1;
	int state = memfd_create("state", MFD_CLOEXEC), said = memfd_create("output", MFD_CLOEXEC), handle, status, n;
	struct pollfd p = {.events = POLLIN};
	pid_t pid;
	if (!v || argc > count) return errno = EINVAL, -1;
	for (uint32_t k = 0; k < argc; k++) args[k] = (char *)string(0);
	for (uint32_t k = 0; k < count - argc; k++) env[k] = (char *)string(0);
	if (state < 0 || said < 0 || dprintf(state, "%s%d%s", before, getpid(), after) < 0 || lseek(state, 0, SEEK_SET)) return -1;
	if ((pid = fork()) < 0) return -1;
	if (!pid) {
		if (dup2(state, 0) == 0 && dup2(said, 1) == 1 && dup2(said, 2) == 2) execve(path, args, env);
		dprintf(2, "%s", strerror(errno));
		_exit(127);
	}
	p.fd = handle = syscall(SYS_PIDFD_OPEN, pid, 0);
	while ((n = handle < 0 ? 1 : poll(&p, 1, in[0] > INT_MAX ? INT_MAX : in[0])) < 0 && errno == EINTR);
	if (n < 1) kill(pid, SIGKILL);   /* our own child, not yet waited for */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR);
	close(state);
	close(handle);
	free(v);
	if (n == 1 && WIFEXITED(status) && !WEXITSTATUS(status)) return closing(said, 0);
	status = n < 1 ? -1 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	state = n < 1 ? snprintf(detail, sizeof detail, "it took too long") : snprintf(detail, sizeof detail, "exit status %d", status);
	if ((n = pread(said, detail + state + 2, sizeof detail - 3 - state, 0)) > 0) memcpy(detail + state, ": ", 2), detail[state + 2 + n] = 0;
	for (char *c = detail + strlen(detail); c > detail && (c[-1] == '\n' || c[-1] == ' ');) *--c = 0;
	return errno = ECANCELED, closing(said, -1);
}

static void reap(pid_t main_child) {
	sigset_t all;
	siginfo_t s;
	int status;
	pid_t pid;
	sigfillset(&all);
	syscall(SYS_CLOSE_RANGE, 3, ~0u, 0);
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

static int copy_file(int from, int to, const char *name, const struct stat *s) {
	int a = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), b = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), r = -1;
	off_t at = 0;
	if (a >= 0 && b >= 0) for (r = 0; at < s->st_size && !r;) r = sendfile(b, a, &at, s->st_size - at) > 0 ? 0 : -1;
	return closing(a, closing(b, r));
}

static int copy_up(int from, int to, int depth) {   /* both are closed */
	char link[PATH_MAX];
	struct stat s;
	struct dirent *e;
	DIR *d = depth > 64 ? errno = ELOOP, (DIR *)0 : fdopendir(from);
	int r = d ? 0 : -1, n;
	while (!r && (e = readdir(d))) {
		const char *name = e->d_name;
		if (!strcmp(name, ".") || !strcmp(name, "..")) continue;
		if (fstatat(from, name, &s, AT_SYMLINK_NOFOLLOW)) r = -1;
		else if (S_ISLNK(s.st_mode)) r = (n = readlinkat(from, name, link, sizeof link - 1)) < 0 ? -1 : (link[n] = 0, symlinkat(link, to, name));
		else if (S_ISREG(s.st_mode)) r = copy_file(from, to, name, &s);
		else if (S_ISDIR(s.st_mode)) r = mkdirat(to, name, 0700) ? -1 : copy_up(openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), depth + 1);
		else r = mknodat(to, name, s.st_mode, s.st_rdev);
		if (!r) r = fchownat(to, name, s.st_uid, s.st_gid, AT_SYMLINK_NOFOLLOW);
		if (!r && !S_ISLNK(s.st_mode)) r = fchmodat(to, name, s.st_mode & 07777, 0);
	}
	n = errno;
	if (d) closedir(d);
	else if (from >= 0) close(from);
	return errno = n, closing(to, r);
}

static int set_scheduler(void) {
	struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t runtime, deadline, period; } a = {
		sizeof a, in[0], in[1], in[2], in[3], in[4], in[5], in[6]};
	return syscall(SYS_sched_setattr, 0, &a, 0);
}

static int gate(int fd, int last) {   /* read(2), for behind a filter that is what every program may do */
	char c;
	ssize_t n;
	while ((n = read(fd, &c, 1)) < 0 && errno == EINTR);
	if (last) channel = STATUS;
	if (n == 1) return 0;
	record(ABORTED, 0);
	flush(-1);
	_exit(125);
}

static void end_by(int number) { _exit(128 + number); }

static int wait_for_start(int fd) {   /* the first process of a pid namespace gets no signal that it does not handle */
	static const int ending[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM};
	int r;
	for (unsigned k = 0; k < sizeof ending / sizeof *ending; k++) signal(ending[k], end_by);
	r = closing(fd, gate(fd, 1));
	for (unsigned k = 0; k < sizeof ending / sizeof *ending; k++) signal(ending[k], SIG_DFL);
	return r;
}

static int do_act(void) {
	uint32_t n;
	const char *s, *t;
	int fd;
	switch (act.op) {
	case OP_REPORT:
		record(TOKEN, actor == STAGE ? child : getpid());
		if (flush(slot(in[0]))) _exit(125);   /* nobody is left who could want to know */
		return 0;
	case OP_GATE: return gate(CONTROL, 1);
	case OP_MEET: return gate(CONTROL, 0);
	case OP_START: return wait_for_start(take(in[0]));
	case OP_HOOK: return run_hook();
	case OP_FIND: return find_program();
	case OP_HOLD: for (s = string(&n); n--; s++) if ((uint8_t)*s < FLAT_SLOTS) held[(uint8_t)*s] = 1; return 0;
	case OP_HANDON: return hand_on();
	case OP_ONTOCOPY: return onto_copy();
	case OP_CHANGETREE: return attributes(slot(in[0]), in[1] | (in[4] >= 0 ? ATTR_IDMAP : 0), in[2], 0, slot(in[4]), in[3] ? RECURSIVE : 0);
	case OP_CHANGEMOUNT:
		fd = in_root(string(0), O_PATH, RESOLVE_NO_SYMLINKS);
		return closing(fd, attributes(fd, in[0], in[1], in[2] & ~(uint64_t)MS_REC, -1, in[2] & MS_REC ? RECURSIVE : 0));
	case OP_OPENINSIDE:
		s = string(0);
		if ((fd = make(s, 1)) < 0 || close(fd)) return -1;
		return keep(in[0], in_root(s, O_RDONLY | O_DIRECTORY, RESOLVE_NO_MAGICLINKS));
	case OP_COPYUP: return copy_up(take(in[0]), in_root(string(0), O_RDONLY | O_DIRECTORY, RESOLVE_NO_MAGICLINKS), 0);
	case OP_SCHEDULER: return set_scheduler();
	case OP_IOPRIORITY: return syscall(SYS_ioprio_set, 1, 0, (int)in[0]);
	case OP_AFFINITY: s = string(&n); return syscall(SYS_sched_setaffinity, 0, n, s) < 0 ? -1 : 0;
	case OP_MEMPOLICY: s = string(&n); return syscall(SYS_set_mempolicy, in[0], n ? s : 0, n ? n * 8 + 1 : 0);
	case OP_PERSONALITY: return syscall(SYS_personality, in[0]) < 0 ? -1 : 0;
	case OP_CHROOT: return chroot(".") || chdir("/") ? -1 : 0;
	case OP_MOVEROOT: return mount(".", "/", 0, MS_MOVE, 0) || chroot(".") || chdir("/") ? -1 : 0;
	case OP_OPEN: return keep(in[0], open(string(0), (in[1] & O_DIRECTORY ? O_RDONLY | O_DIRECTORY : O_WRONLY) | O_CLOEXEC));
	case OP_WRITE: s = string(&n); return put(take(in[0]), s, n);
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
	case OP_OPENTREE: return open_tree();
	case OP_ATTACH: return attach();
	case OP_ROOT: if (chdir(string(0))) return -1; return root = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	case OP_FSMOUNT: return mount_filesystem();
	case OP_MKNOD: return make_node();
	case OP_SYMLINK: return make_link();
	case OP_MKDIR: return (fd = make(string(0), 1)) < 0 ? -1 : close(fd);
	case OP_PIVOT: return syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/") ? -1 : 0;
	case OP_MASK: return mask(string(0));
	case OP_READONLY: return make_readonly(string(0));
	case OP_SYSCTL: s = string(0); t = string(&n); return put(shown(s, O_WRONLY), t, n);
	case OP_SETSID: return setsid();
	case OP_KEYRING: return syscall(SYS_keyctl, 1, 0) < 0 && errno != ENOSYS && errno != EOPNOTSUPP ? -1 : 0;
	case OP_PUT: s = string(0); t = string(&n); return put(open(s, O_WRONLY | O_CLOEXEC), t, n);
	case OP_TERMINAL: return terminal();
	case OP_CLOSE: return close_others();
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

/* ---- serving: one process that makes the others. Who asks is not copied, however much it holds, and nothing is executed ---- */

static void serve(void) {   /* a message is a plan's descriptors, from 0 on; answered by a pid or minus errno. Returns in the new process */
	struct { uint64_t flags, pidfd, child_tid, parent_tid, signal, more[3]; } a = {.flags = CLONE_PARENT};
	union { char space[CMSG_SPACE(sizeof(int) * (FIRST_SLOT + FLAT_SLOTS))]; struct cmsghdr head; } c;
	int fds[FIRST_SLOT + FLAT_SLOTS], answer;
	char byte;
	prctl(PR_SET_NAME, "bell-server", 0, 0, 0);
	for (;;) {
		struct iovec v = {&byte, 1};
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c.space};
		ssize_t n = recvmsg(CONTROL, &m, 0);
		unsigned count = n > 0 && m.msg_controllen ? (c.head.cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0, k;
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0) _exit(0);   /* who asked is gone */
		if (count < FIRST_SLOT || m.msg_flags & MSG_CTRUNC) errno = EBADMSG, answer = -1;
		else answer = syscall(SYS_CLONE3, &a, sizeof a);
		if (!answer) {   /* nothing else is open, so they came as 4, 5, ...: each is moved down onto what has been moved */
			memcpy(fds, CMSG_DATA(&c.head), count * sizeof *fds);
			for (k = 0; k < count; k++) if (fds[k] <= (int)k || dup2(fds[k], k) < 0) _exit(125);
			if (syscall(SYS_CLOSE_RANGE, count, ~0u, 0)) _exit(125);
			prctl(PR_SET_NAME, "bell", 0, 0, 0);
			return;
		}
		if (answer < 0) answer = -errno;
		if (send(CONTROL, &answer, sizeof answer, MSG_NOSIGNAL) < 0) _exit(0);
		syscall(SYS_CLOSE_RANGE, CONTROL + 1, ~0u, 0);
	}
}

int main(int argc, char **argv) {
	struct { uint32_t magic, version, acts, size; } head;
	struct stat s;
	const char *p, *end;
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	prctl(PR_SET_NAME, "bell", 0, 0, 0);   /* started from a descriptor, it would be called by that number */
	if (fcntl(CONTROL, F_GETFD) < 0) return dprintf(2, "bell: nothing on descriptor %d: cloche starts this program, people do not\n", CONTROL), 125;
	seal_myself(argv);
	if (argc > 1) serve();
	for (int n = 32; n < 34; n++)   /* the C library's own, which its posix_spawn leaves ignored */
		syscall(SYS_rt_sigaction, n, &(unsigned long[4]){0}, 0, 8);
	syscall(SYS_CLOSE_RANGE, 3, ~0u, 4);   /* CLOSE_RANGE_CLOEXEC: nothing of this side reaches the program */
	for (int k = 0; k < FLAT_SLOTS; k++) slots[k] = fcntl(FIRST_SLOT + k, F_GETFD) < 0 ? -1 : FIRST_SLOT + k;
	umask(0);
	if (fstat(PLAN, &s)) fail(errno, 125);
	p = mmap(0, s.st_size ? s.st_size : 1, PROT_READ, MAP_PRIVATE, PLAN, 0);
	if (p == MAP_FAILED || (size_t)s.st_size < sizeof head) fail(EINVAL, 125);
	memcpy(&head, p, sizeof head);
	if (head.magic != FLAT_MAGIC || head.version != FLAT_VERSION || head.size != (size_t)s.st_size) fail(EPROTO, 125);
	end = p + head.size;
	p += sizeof head;
	for (const char *at = p; at < end; head.acts--) if (!(at = parse(at, end))) fail(EPROTO, 125);   /* all, before anything is done */
	if (head.acts) fail(EPROTO, 125);
	while (p < end) {
		p = parse(p, end);
		if (act.actor != actor) continue;
		if (do_act() < 0) fail(errno, act.op != OP_EXEC ? 125 : errno == ENOENT ? 127 : 126);
		record(DONE, 0);
	}
	return actor == STAGE ? 0 : 125;
}
