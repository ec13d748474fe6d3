// The tools take mimalloc where there is one: plans of 36,864 tensors are millions of small pieces,
// and with memory taken in large pages (madvise) a run takes about half of the time it takes with
// glibc's allocator (tests/bench/RESULTS.md). The library leaves the choice to its user.

#if MOELORA_MIMALLOC

#include <mimalloc.h>

namespace {

// Before main; MIMALLOC_LARGE_OS_PAGES=0 and the like in the environment still count. What is freed
// is kept for ten seconds: a layer's buffers are needed again for the next.
const bool kOptions = [] {
  mi_option_set_enabled_default(mi_option_large_os_pages, true);
  mi_option_set_default(mi_option_decommit_delay, 10'000);
  return true;
}();

}  // namespace

#endif
