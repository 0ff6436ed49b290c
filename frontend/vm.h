/* A virtual machine: clock, loop, memory, CPUs, board, and the threads that run them. */
#ifndef EIDOLON_FRONTEND_VM_H
#define EIDOLON_FRONTEND_VM_H

#include "base/error.h"
#include "frontend/command_line.h"

struct vm;

struct vm *vm_create(struct settings *settings, struct error *err);
/* Runs until power-off, exit request or a signal. The exit status. Main thread. */
int vm_run(struct vm *vm);
void vm_destroy(struct vm *vm);

#endif
