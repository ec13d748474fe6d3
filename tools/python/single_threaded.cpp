// libstdc++'s shared pointers ask glibc (2.32 and newer) whether there is one thread, by a variable
// that only an executable's objects can reach as ours do (CMakeLists.txt). The module has one of
// its own, which says that there are several: never wrong, and no glibc is too old.
extern "C" {
extern char __libc_single_threaded;
char __libc_single_threaded = 0;
}
