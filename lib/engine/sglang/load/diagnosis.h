#pragma once

#include <span>
#include <string>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/load/cpu_adapter.h"
#include "lib/engine/sglang/model/targets.h"

namespace moelora::sglang {

// Why the server raises an exception, and what was found.
struct Diagnosis {
  const Cause* cause;
  std::string detail;
};

// Of torch.cat over `parts`.
Diagnosis cause_of_stack(const CpuAdapter& adapter, std::span<const Staged* const> parts);

// Of a tensor whose name belongs to none of the server's targets.
Diagnosis cause_of_unmatched(const CpuAdapter& adapter, const Staged& entry, const NameSet& targets,
                             const Features& features);

// Of a tensor that does not have the buffer's shape. `max_rank` is the pool's.
Diagnosis cause_of_shape(const CpuAdapter& adapter, const Staged& entry, int64_t max_rank,
                         std::string found_and_expected);

}  // namespace moelora::sglang
