#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace moelora {

// The threads this process may run at once (its CPU affinity), at least 1.
int available_threads();

// Calls work(item, worker) for every item in [0, count), each once, on `threads` threads (0: all;
// never more than items). Items are started in order; worker is in [0, threads) and no two calls
// with the same worker overlap. When calls throw, no further item is started and the exception of
// the lowest item is rethrown, after all running calls have returned.
void parallel_for(int64_t count, int threads,
                  const std::function<void(int64_t item, int worker)>& work);

// A text of `count` parts, written on `threads` threads (0: all): append(first, last, out) adds
// parts [first, last) to `out`, which is empty; the texts follow one another in order.
std::string parallel_text(
    int64_t count, int threads,
    const std::function<void(int64_t first, int64_t last, std::string& out)>& append);

}  // namespace moelora
