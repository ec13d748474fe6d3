#pragma once

#include <cstddef>
#include <span>

#include "lib/base/arena.h"
#include "lib/io/tensor_jobs.h"

namespace moelora {

// Evaluates a job: reads what its blocks are made from, large neighbours together, each byte once;
// and moves it into place. Returns the blocks' bytes, one block after another, in `arena`. Keeps
// within job.cost unless a source's granule makes that impossible. Throws Error.
std::span<const std::byte> run_job(TensorList tensors, const Job& job, Arena& arena);

}  // namespace moelora
