// The tools take mimalloc where there is one: plans of 36,864 tensors are millions of small pieces,
// and with memory taken in large pages (madvise) a run takes about half of the time it takes with
// glibc's allocator (tests/bench/RESULTS.md). The library leaves the choice to its user.

#if MOELORA_MIMALLOC

#include <mimalloc.h>

namespace {

// Before main; MIMALLOC_LARGE_OS_PAGES=0 in the environment still counts.
const bool kLargePages = [] {
  mi_option_set_enabled_default(mi_option_large_os_pages, true);
  return true;
}();

}  // namespace

#endif
