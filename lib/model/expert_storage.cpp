#include "lib/model/expert_storage.h"

#include <charconv>

namespace moelora {
namespace {

constexpr std::string_view kLayer = "{layer}";

}  // namespace

std::vector<StoredProjection> stored_projections(const ExpertStorage& s) {
  std::vector<StoredProjection> out;
  for (const StoredProjection& p :
       {StoredProjection{Projection::gate, s.gate}, StoredProjection{Projection::up, s.up},
        StoredProjection{Projection::gate_up, s.gate_up},
        StoredProjection{Projection::down, s.down}}) {
    if (!p.name.empty()) out.push_back(p);
  }
  return out;
}

ExpertStorage per_expert_storage(const ModelSpec& spec) {
  if (spec.hub.numbered) return spec.hub;
  return {true,        spec.memory.stem,  spec.gated ? "gate_proj" : "", "up_proj", "",
          "down_proj", ExpertAxes::out_in};
}

ExpertStorage fused_storage(const ModelSpec& spec) {
  return spec.hub.numbered ? spec.memory : spec.hub;
}

std::string layer_stem(const ModelSpec& spec) {
  return spec.hub.stem.substr(0, spec.hub.stem.find(kLayer) + kLayer.size());
}

std::pair<int, std::string> split_stem(const std::string& name, const std::string& stem) {
  const std::pair<int, std::string> none = {-1, ""};
  const size_t mark = stem.find(kLayer);
  if (mark == std::string::npos || name.compare(0, mark, stem, 0, mark) != 0) return none;
  int layer = 0;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + mark, end, layer);
  const std::string tail = stem.substr(mark + kLayer.size()) + ".";
  const std::string after(rest, end);
  if (error != std::errc() || layer < 0 || after.rfind(tail, 0) != 0) return none;
  return {layer, after.substr(tail.size())};
}

}  // namespace moelora
