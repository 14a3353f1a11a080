/* The launcher of a packed node: unpack the rest of this file, run it, clean up.
 *
 *     node-packed IMAGE BANDS [OPTION...]
 *
 * The launcher is linked statically, so that it needs only a kernel, not even /proc.
 * In the file, entries follow it, each a struct entry and its content: the dynamic
 * loader, libc, Python, and the files that Python cannot start without. The launcher
 * writes them into a new folder in $TMPDIR, or in the working directory if TMPDIR is
 * not set, and removes that folder however the node ends. Python runs start.py, which
 * unpacks the compressed part. It inherits this file, open at that position.
 *
 * Exit status: the node's, or 69 or 74, which docs/conversion.md explains.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { UNFIT = 69, DISK_FULL = 74 };

/* pack/archive.py writes these, in the machine's own byte order. */
struct footer { uint64_t first_entry; char magic[8]; };
struct entry { uint64_t size; uint64_t mode; char name[240]; };

static const char MAGIC[8] = "COGNODE1";
static char folder[PATH_MAX];
static volatile pid_t child;

static int remove_one(const char *path, const struct stat *s, int kind, struct FTW *f)
{
    (void)s, (void)kind, (void)f;
    return remove(path);
}

static void clean_up(void)
{
    if (folder[0])
        nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void give_up(const char *what)
{
    int full = errno == ENOSPC || errno == EDQUOT;
    fprintf(stderr, "the packed node cannot be started: %s: %s\n", what,
            errno ? strerror(errno) : "the file is incomplete");
    clean_up();
    exit(full ? DISK_FULL : UNFIT);
}

static void read_all(int file, void *into, size_t size)
{
    for (char *at = into; size > 0;) {
        errno = 0;
        ssize_t count = read(file, at, size);
        if (count <= 0)
            give_up("read");
        at += count, size -= count;
    }
}

static void unpack(int self, const struct entry *entry)
{
    static char path[PATH_MAX], buffer[1 << 16];
    if (snprintf(path, sizeof path, "%s/%s", folder, entry->name) >= PATH_MAX)
        give_up("a path that is too long");
    for (char *slash = path + strlen(folder) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
            give_up(path);
        *slash = '/';
    }
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL, (mode_t)entry->mode);
    if (file < 0)
        give_up(path);
    for (uint64_t left = entry->size; left > 0;) {
        size_t count = left < sizeof buffer ? left : sizeof buffer;
        read_all(self, buffer, count);
        for (char *at = buffer; count > 0;) {
            ssize_t written = write(file, at, count);
            if (written < 0)
                give_up(path);
            at += written, count -= written, left -= written;
        }
    }
    if (close(file) < 0)
        give_up(path);
}

static void make_folder(void)
{
    const char *parent = getenv("TMPDIR");
    char here[PATH_MAX];
    if (!parent || !parent[0])
        parent = getcwd(here, sizeof here);
    if (!parent || !(parent = realpath(parent, NULL)))
        give_up("the working directory or TMPDIR");
    const char *slash = strcmp(parent, "/") ? "/" : "";
    snprintf(folder, sizeof folder, "%s%s.node-XXXXXX", parent, slash);
    if (!mkdtemp(folder)) {
        folder[0] = '\0';
        give_up(parent);
    }
}

static void pass_on(int number)
{
    if (child > 0)
        kill(child, number);
}

static void run(int self, int argc, char **argv)
{
    static char loader[PATH_MAX + 32], libraries[PATH_MAX + 32], python[PATH_MAX + 32],
        start[PATH_MAX + 32], number[16];
    snprintf(loader, sizeof loader, "%s/lib/loader", folder);
    snprintf(libraries, sizeof libraries, "%s/lib", folder);
    snprintf(python, sizeof python, "%s/bin/python3", folder);
    snprintf(start, sizeof start, "%s/start.py", folder);
    snprintf(number, sizeof number, "%d", self);
    /* The options keep libraries and modules of the machine, from its environment or
     * its ld.so.cache, out of the node. */
    char *words[] = {loader, "--inhibit-cache", "--library-path", libraries,
                     python, "-I", "-S", "-B", start, number};
    size_t count = sizeof words / sizeof *words;
    char **all = calloc(count + argc, sizeof *all);
    if (!all)
        give_up("memory");
    memcpy(all, words, sizeof words);
    memcpy(all + count, argv + 1, (argc - 1) * sizeof *all);
    execv(loader, all);
    give_up(loader);
}

int main(int argc, char **argv)
{
    struct footer footer;
    struct entry entry;
    /* There may be no /proc, so this is not /proc/self/exe. */
    int self = open((const char *)getauxval(AT_EXECFN), O_RDONLY);
    if (self < 0 || lseek(self, -(off_t)sizeof footer, SEEK_END) < 0)
        give_up(argv[0]);
    read_all(self, &footer, sizeof footer);
    errno = 0;
    if (memcmp(footer.magic, MAGIC, sizeof MAGIC) ||
        lseek(self, footer.first_entry, SEEK_SET) < 0)
        give_up(argv[0]);
    make_folder();
    for (read_all(self, &entry, sizeof entry); entry.name[0];
         read_all(self, &entry, sizeof entry))
        unpack(self, &entry);

    for (const int *each = (const int[]){SIGHUP, SIGINT, SIGTERM, 0}; *each; each++)
        signal(*each, pass_on);
    child = fork();
    if (child < 0)
        give_up("fork");
    if (child == 0) {
        for (const int *each = (const int[]){SIGHUP, SIGINT, SIGTERM, 0}; *each; each++)
            signal(*each, SIG_DFL);
        run(self, argc, argv);
    }
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    clean_up();
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        raise(WTERMSIG(status));
    }
    return WEXITSTATUS(status);
}
