/* A file system served through /dev/fuse, by the bare protocol. */
#define FAMILY "fuse"
#include "t.h"
#include <dirent.h>
#include <linux/fuse.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define NODES 32
static struct node { int used, parent; char name[32]; unsigned mode; char data[4096]; unsigned size; } nodes[NODES];
static int dev, deaf;

static void attr_of(int n, struct fuse_attr *a) {
    memset(a, 0, sizeof *a);
    a->ino = n;
    a->mode = nodes[n].mode;
    a->size = nodes[n].size;
    a->nlink = 1;
    a->blksize = 4096;
    a->mtime = 1000;
    a->uid = getuid();
    a->gid = getgid();
}
static void answer(uint64_t unique, int error, const void *body, size_t len) {
    struct fuse_out_header h = {sizeof h + len, -error, unique};
    struct iovec v[2] = {{&h, sizeof h}, {(void *)body, len}};
    if (writev(dev, v, 2) < 0 && errno != ENOENT) _exit(40);
}
static int find(int parent, const char *name) {
    for (int i = 1; i < NODES; i++)
        if (nodes[i].used && nodes[i].parent == parent && !strcmp(nodes[i].name, name)) return i;
    return 0;
}
static void entry(uint64_t unique, int n, int open) {
    struct { struct fuse_entry_out e; struct fuse_open_out o; } out;
    memset(&out, 0, sizeof out);
    out.e.nodeid = n;
    out.e.attr_valid = out.e.entry_valid = 0;
    attr_of(n, &out.e.attr);
    answer(unique, 0, &out, open ? sizeof out : sizeof out.e);
}
static int make(int parent, const char *name, unsigned mode) {
    for (int i = 2; i < NODES; i++)
        if (!nodes[i].used) {
            memset(&nodes[i], 0, sizeof nodes[i]);
            nodes[i].used = 1;
            nodes[i].parent = parent;
            nodes[i].mode = mode;
            strcpy(nodes[i].name, name);
            return i;
        }
    return 0;
}
static void serve(void) {
    static char buf[1 << 18];
    ssize_t n;
    while ((n = read(dev, buf, sizeof buf)) > 0 || (n < 0 && errno == EINTR)) {
        if (n < 0) continue;
        struct fuse_in_header *h = (void *)buf;
        char *in = buf + sizeof *h;
        int at = (int)h->nodeid, found;
        if (h->len != n) _exit(41);
        switch (h->opcode) {
        case FUSE_INIT: {
            struct fuse_init_out out = {.major = 7, .minor = 31, .max_readahead = 4096, .max_write = 4096};
            answer(h->unique, 0, &out, sizeof out);
            break;
        }
        case FUSE_LOOKUP:
            found = find(at, in);
            if (found) entry(h->unique, found, 0);
            else answer(h->unique, ENOENT, NULL, 0);
            break;
        case FUSE_GETATTR: {
            struct fuse_attr_out out = {.attr_valid = 0};
            attr_of(at, &out.attr);
            answer(h->unique, 0, &out, sizeof out);
            break;
        }
        case FUSE_SETATTR: {
            struct fuse_setattr_in *s = (void *)in;
            if (s->valid & FATTR_SIZE) nodes[at].size = s->size;
            if (s->valid & FATTR_MODE) nodes[at].mode = (nodes[at].mode & S_IFMT) | (s->mode & 07777);
            struct fuse_attr_out out = {.attr_valid = 0};
            attr_of(at, &out.attr);
            answer(h->unique, 0, &out, sizeof out);
            break;
        }
        case FUSE_OPEN:
        case FUSE_OPENDIR: {
            if (deaf && h->opcode == FUSE_OPEN) break;
            struct fuse_open_out out = {.fh = 7, .open_flags = FOPEN_DIRECT_IO};
            answer(h->unique, 0, &out, sizeof out);
            break;
        }
        case FUSE_CREATE: entry(h->unique, make(at, in + sizeof(struct fuse_create_in), ((struct fuse_create_in *)in)->mode), 1); break;
        case FUSE_MKNOD: entry(h->unique, make(at, in + sizeof(struct fuse_mknod_in), ((struct fuse_mknod_in *)in)->mode), 0); break;
        case FUSE_MKDIR: entry(h->unique, make(at, in + sizeof(struct fuse_mkdir_in), S_IFDIR | ((struct fuse_mkdir_in *)in)->mode), 0); break;
        case FUSE_SYMLINK:
            found = make(at, in, S_IFLNK | 0777);
            strcpy(nodes[found].data, in + strlen(in) + 1);
            nodes[found].size = strlen(nodes[found].data);
            entry(h->unique, found, 0);
            break;
        case FUSE_READLINK: answer(h->unique, 0, nodes[at].data, nodes[at].size); break;
        case FUSE_UNLINK:
        case FUSE_RMDIR:
            found = find(at, in);
            nodes[found].used = 0;
            answer(h->unique, found ? 0 : ENOENT, NULL, 0);
            break;
        case FUSE_RENAME: {
            char *from = in + sizeof(struct fuse_rename_in), *to = from + strlen(from) + 1;
            int old = find(at, from), over = find((int)((struct fuse_rename_in *)in)->newdir, to);
            nodes[over].used = 0;
            nodes[old].parent = (int)((struct fuse_rename_in *)in)->newdir;
            strcpy(nodes[old].name, to);
            answer(h->unique, 0, NULL, 0);
            break;
        }
        case FUSE_RENAME2: answer(h->unique, ENOSYS, NULL, 0); break;
        case FUSE_READ: {
            struct fuse_read_in *r = (void *)in;
            unsigned left = r->offset < nodes[at].size ? nodes[at].size - r->offset : 0;
            answer(h->unique, 0, nodes[at].data + r->offset, left < r->size ? left : r->size);
            break;
        }
        case FUSE_WRITE: {
            struct fuse_write_in *w = (void *)in;
            struct fuse_write_out out = {.size = w->size};
            if (w->offset + w->size > sizeof nodes[at].data) {
                answer(h->unique, ENOSPC, NULL, 0);
                break;
            }
            memcpy(nodes[at].data + w->offset, in + sizeof *w, w->size);
            if (w->offset + w->size > nodes[at].size) nodes[at].size = w->offset + w->size;
            answer(h->unique, 0, &out, sizeof out);
            break;
        }
        case FUSE_READDIR: {
            struct fuse_read_in *r = (void *)in;
            char out[4096];
            unsigned used = 0;
            for (uint64_t i = r->offset + 1; i < NODES && used < 3000; i++) {
                if (i == 1 || !nodes[i].used || nodes[i].parent != at) continue;
                struct fuse_dirent *d = (void *)(out + used);
                memset(d, 0, 64);
                d->ino = i;
                d->off = i;
                d->namelen = strlen(nodes[i].name);
                d->type = nodes[i].mode >> 12;
                memcpy(d->name, nodes[i].name, d->namelen);
                used += FUSE_DIRENT_SIZE(d);
            }
            answer(h->unique, 0, out, used);
            break;
        }
        case FUSE_STATFS: {
            struct fuse_statfs_out out = {.st = {.blocks = 1234, .bsize = 4096, .namelen = 99}};
            answer(h->unique, 0, &out, sizeof out);
            break;
        }
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_INTERRUPT: break;
        case FUSE_RELEASE:
        case FUSE_RELEASEDIR:
        case FUSE_FLUSH:
        case FUSE_FSYNC: answer(h->unique, 0, NULL, 0); break;
        default: answer(h->unique, ENOSYS, NULL, 0);
        }
    }
    _exit(n < 0 && errno == ENODEV ? 0 : 42);
}
/* /dev/fuse, or a node of its own where devices are allowed. */
static int open_device(void) {
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0 && !mkdir("dev", 0755) && !mount("none", "dev", "tmpfs", 0, NULL)) {
        mknod("dev/fuse", S_IFCHR | 0600, makedev(10, 229));
        fd = open("dev/fuse", O_RDWR | O_CLOEXEC);
        int error = errno;
        umount2("dev", MNT_DETACH);
        errno = error;
    }
    if (fd < 0) t_skip("/dev/fuse: %s", strerror(errno));
    return fd;
}
static pid_t server;
static void mount_it(void) {
    dev = open_device();
    nodes[1].used = 1;
    nodes[1].mode = S_IFDIR | 0755;
    OK(mkdir("mnt", 0755));
    char options[128];
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%d,group_id=%d", dev, getuid(), getgid());
    if (mount("none", "mnt", "fuse", MS_NOSUID | MS_NODEV, options)) t_skip("mount: %s", strerror(errno));
    server = OK(fork());
    if (!server) serve();
    OK(close(dev));
}
static void unmount_it(void) {
    OK(umount2("mnt", MNT_DETACH));
    EQ(t_wait(server), 0);
}
TEST(files_and_directories) {
    mount_it();
    struct stat st;
    OK(stat("mnt", &st));
    CHECK(S_ISDIR(st.st_mode));
    FAILS(stat("mnt/none", &st), ENOENT);
    int fd = OK(open("mnt/f", O_RDWR | O_CREAT | O_EXCL, 0640));
    EQ(write(fd, "hello world", 11), 11);
    EQ(pwrite(fd, "H", 1, 0), 1);
    char buf[64] = "";
    EQ(pread(fd, buf, sizeof buf, 0), 11);
    STREQ(buf, "Hello world");
    OK(fstat(fd, &st));
    EQ(st.st_size, 11);
    EQ(st.st_mode & 0777, 0640);
    EQ(lseek(fd, 0, SEEK_END), 11);
    OK(fsync(fd));
    OK(close(fd));
    FAILS(open("mnt/f", O_RDWR | O_CREAT | O_EXCL, 0640), EEXIST);
    fd = OK(open("mnt/f", O_WRONLY | O_APPEND));
    EQ(write(fd, "!", 1), 1);
    OK(close(fd));
    OK(stat("mnt/f", &st));
    EQ(st.st_size, 12);
    OK(truncate("mnt/f", 5));
    OK(chmod("mnt/f", 0600));
    OK(stat("mnt/f", &st));
    EQ(st.st_size, 5);
    EQ(st.st_mode & 0777, 0600);
    OK(mkdir("mnt/d", 0755));
    OK(rename("mnt/f", "mnt/d/g"));
    FAILS(stat("mnt/f", &st), ENOENT);
    OK(symlink("d/g", "mnt/l"));
    EQ(readlink("mnt/l", buf, sizeof buf), 3);
    fd = OK(open("mnt/l", O_RDONLY));
    EQ(read(fd, buf, sizeof buf), 5);
    OK(close(fd));
    int seen = 0;
    DIR *dir = opendir("mnt");
    CHECK(dir);
    for (struct dirent *e; (e = readdir(dir));) seen += !strcmp(e->d_name, "d") ? 1 : !strcmp(e->d_name, "l") ? 10 : 100;
    closedir(dir);
    EQ(seen, 11);
    struct statfs fs;
    OK(statfs("mnt", &fs));
    EQ(fs.f_type, 0x65735546);
    EQ(fs.f_blocks, 1234);
    OK(unlink("mnt/d/g"));
    OK(rmdir("mnt/d"));
    FAILS(getxattr("mnt", "user.x", buf, 8), EOPNOTSUPP);
    CHECK(strstr(t_read_file("/proc/self/mounts"), " fuse rw,nosuid,nodev"));
    unmount_it();
}
TEST(server_that_dies) {
    mount_it();
    int fd = OK(open("mnt/f", O_RDWR | O_CREAT, 0640));
    EQ(write(fd, "x", 1), 1);
    OK(kill(server, SIGKILL));
    t_wait(server);
    FAILS(write(fd, "x", 1), ENOTCONN);
    FAILS(open("mnt/g", O_RDWR | O_CREAT, 0640), ENOTCONN);
    OK(umount2("mnt", MNT_DETACH));
}
TEST(server_that_does_not_answer) {
    deaf = 1;
    mount_it();
    OK(mknod("mnt/f", S_IFREG | 0600, 0));
    pid_t pid = OK(fork());
    if (!pid) {
        open("mnt/f", O_RDONLY);
        _exit(1);
    }
    usleep(200000);
    EQ(waitpid(pid, NULL, WNOHANG), 0);
    OK(kill(server, SIGKILL));
    t_wait(server);
    EQ(t_wait(pid), 1 << 8);
    OK(umount2("mnt", MNT_DETACH));
}
TEST(options_of_mounts) {
    int fd = open_device();
    char buf[8192], options[128];
    FAILS(read(fd, buf, sizeof buf), EPERM);
    OK(mkdir("mnt", 0755));
    FAILS(mount("none", "mnt", "fuse", 0, "user_id=0"), EINVAL);
    int other = OK(open("/dev/null", O_RDWR));
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", other);
    FAILS(mount("none", "mnt", "fuse", 0, options), EINVAL);
}
