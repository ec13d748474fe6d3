#include "lib/check/expert_coverage.h"

#include <algorithm>

namespace moelora {

std::vector<int> ExpertCoverage::layers() const {
  std::vector<int> out;
  for (const auto& entry : places)
    if (out.empty() || out.back() != entry.first.first) out.push_back(entry.first.first);
  return out;
}

ExpertCoverage::Key coverage_key(const NamedTensor& tensor) {
  const ExpertPath& place = *tensor.expert;
  return {place.layer,
          std::string(place.projection ? projection_name(*place.projection) : std::string_view())};
}

ExpertCoverage expert_coverage(const Subject& subject, int64_t experts) {
  ExpertCoverage out;
  for (const NamedTensor& tensor : subject.parts.tensors) {
    if (!tensor.expert || tensor.elements() == 0) continue;
    const ExpertPath& place = *tensor.expert;
    auto& entry = out.places[coverage_key(tensor)];
    if (entry.stem.empty())
      entry.stem = with_layer(subject.experts[static_cast<size_t>(tensor.expert_tensor)].path.stem,
                              place.layer);
    if (!place.expert || *place.expert >= experts) continue;
    entry.held.resize(static_cast<size_t>(experts));
    entry.held[static_cast<size_t>(*place.expert)] = true;
  }
  return out;
}

}  // namespace moelora
