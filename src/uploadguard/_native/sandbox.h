/* What a worker takes from itself before it sees untrusted bytes. All of it is Linux's; elsewhere the calls fail with
   ENOSYS and the probes say no. */
#ifndef UPLOADGUARD_SANDBOX_H
#define UPLOADGUARD_SANDBOX_H

#include <stdbool.h>

typedef struct {
    bool non_dumpable;
    bool dies_with_parent;
    bool no_new_privs;
    bool no_capabilities;  /* of the calling thread */
} ug_process_state;

/* Whether the seccomp filter below can be installed: the kernel knows its actions, and this build the architecture. */
bool ug_seccomp_available(void);

/* The version of Landlock's interface; 0 where there is none. */
int ug_landlock_abi(void);

/* The calls below return 0, or -1 with errno. */

/* Starts a thread that ends at once. EAGAIN: a limit forbids it. */
int ug_try_thread(void);

int ug_die_with_parent(void);
int ug_make_non_dumpable(void);
int ug_drop_capabilities(void);  /* of the calling thread */
int ug_set_no_new_privs(void);
int ug_read_state(ug_process_state *state);

/* Takes every right that this version of Landlock knows from the calling thread and those it starts. */
int ug_restrict_landlock(int abi);

/* Lets all threads make only the calls that decoding needs. Other calls fail with EPERM; those that only an exploit
   makes end the process with SIGSYS. Memory that holds code can no longer be made. Needs no_new_privs. */
int ug_filter_calls(void);

#endif
