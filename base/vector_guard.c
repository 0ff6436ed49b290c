/* See vector_guard.h. File-scope state because a thread's host registers are per thread too. */
#include "base/vector_guard.h"

_Thread_local struct vector_guard vector_guard_of_thread;
