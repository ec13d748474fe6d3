#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/engine/plan.h"

namespace moelora::sglang {

// A tensor of a file the server reads.
struct Source {
  std::string name;   // as the file spells it
  uint32_t file = 0;  // index in the adapter's list of files
  DType dtype = DType::F32;
  Shape shape;
};

// What happens to one adapter, in the order in which the server meets it. What has the same cause
// and effect is one event: it quotes the first refusal and names the tensors of all of them.
class Journal {
 public:
  struct Entry {
    const Cause* cause = nullptr;
    Effect effect;
    std::string detail;
    std::optional<Refusal> refusal;
    std::vector<int32_t> sources;

    bool is_new() const { return detail.empty(); }
    void add(const std::vector<int32_t>& more) {
      sources.insert(sources.end(), more.begin(), more.end());
    }
  };

  // The entry of this cause and effect, made when first asked for: is_new() until it has a detail.
  // The reference holds until the next call.
  Entry& entry(const Cause* cause, Effect effect);

  const std::vector<Entry>& entries() const { return entries_; }
  bool refused() const;
  const Refusal* first_refusal() const;

  // As a plan shows it: names of the tensors, sorted, each once.
  std::vector<PlanEvent> events(const std::vector<Source>& sources) const;

 private:
  std::vector<Entry> entries_;
};

}  // namespace moelora::sglang
