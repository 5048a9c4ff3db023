/* Lets go-python3, written for CPython 3.7, compile and link on CPython 3.10 to 3.13: it calls functions that CPython has since removed.
   None of them is reached by agflow. Included before every C file (python3.pc), so it must not include Python.h: cgo's type probes break on that. */
#ifndef AGFLOW_PYTHON_COMPAT_H
#define AGFLOW_PYTHON_COMPAT_H

#define PY_SSIZE_T_CLEAN
#include <patchlevel.h>
#include <wchar.h>

static inline int PyCFunction_ClearFreeList(void) { return 0; }
static inline int PyDict_ClearFreeList(void) { return 0; }
static inline int PyFloat_ClearFreeList(void) { return 0; }
static inline int PyFrame_ClearFreeList(void) { return 0; }
static inline int PyList_ClearFreeList(void) { return 0; }
static inline int PyMethod_ClearFreeList(void) { return 0; }
static inline int PySet_ClearFreeList(void) { return 0; }
static inline int PyTuple_ClearFreeList(void) { return 0; }
static inline int PyUnicode_ClearFreeList(void) { return 0; }
static inline void PyEval_ReInitThreads(void) {}
__attribute__((weak)) int PySignal_SetWakeupFd(int fd) { (void)fd; return -1; }

#if PY_VERSION_HEX >= 0x030D0000
static inline int PyEval_ThreadsInitialized(void) { return 1; }
static inline int Py_SetStandardStreamEncoding(const char *encoding, const char *errors) { (void)encoding; (void)errors; return -1; }
static inline void PySys_AddWarnOption(const wchar_t *option) { (void)option; }
static inline void PySys_AddXOption(const wchar_t *option) { (void)option; }
static inline void PySys_SetPath(const wchar_t *path) { (void)path; }
static inline void Py_SetPath(const wchar_t *path) { (void)path; }
#endif

#endif
