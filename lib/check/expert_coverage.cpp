#include "lib/check/expert_coverage.h"

#include <algorithm>

namespace moelora {

std::vector<int> ExpertCoverage::layers() const {
  std::vector<int> out;
  for (const auto& entry : places)
    if (out.empty() || out.back() != entry.first.first) out.push_back(entry.first.first);
  return out;
}

ExpertCoverage expert_coverage(const Subject& subject, int64_t experts) {
  ExpertCoverage out;
  for (const NamedTensor& tensor : subject.parts.tensors) {
    if (!tensor.expert || tensor.elements() == 0) continue;
    const ExpertPlace& place = *tensor.expert;
    const std::string_view word = place.projection ? projection_name(*place.projection) : "";
    auto& entry = out.places[{place.layer, std::string(word)}];
    if (entry.stem.empty())
      entry.stem = layer_path(subject.experts[static_cast<size_t>(tensor.expert_tensor)].path.stem,
                              place.layer);
    if (!place.expert || *place.expert >= experts) continue;
    entry.held.resize(static_cast<size_t>(experts));
    entry.held[static_cast<size_t>(*place.expert)] = true;
  }
  return out;
}

}  // namespace moelora
