#include "lib/adapter/layout.h"

#include <fmt/core.h>

#include <array>

#include "lib/base/nearest.h"

namespace moelora {
namespace {

constexpr std::array kAll = {
#define MOELORA_ENTRY(name) &layouts::name,
#include "layouts.inc"
#undef MOELORA_ENTRY
};

}  // namespace

std::span<const Layout* const> all_layouts() { return kAll; }

const Layout& layout_by_id(std::string_view id, Option said_by) {
  std::vector<std::string_view> known;
  for (const Layout* layout : kAll) {
    if (layout->id == id) return *layout;
    known.push_back(layout->id);
  }
  throw unknown_word(at_option(said_by), "layout", id, known);
}

bool in_hub_names(const ModelSpec& spec, Form form) {
  return form == Form::hub && spec.hub.numbered;
}

std::string written_stem(const WriteContext& context, Form form, int layer) {
  if (context.spec == nullptr) return context.adapter.stem(layer);
  const bool hub = in_hub_names(*context.spec, form);
  return with_layer(context.spec->factor_stem(hub ? Form::hub : Form::memory), layer);
}

bool has_rows(const Layout& layout, const ModelSpec* spec) {
  return layout.one_parameter && spec != nullptr && spec->memory.axes == ExpertAxes::rows;
}

bool joins_gate_up(const Layout& layout, const ModelSpec* spec) {
  return layout.fused && !has_rows(layout, spec);
}

namespace {

// What a layout makes of a whole file: the first tensor it refuses, and whether any decides for it.
struct Verdict {
  const ExpertTensor* refused = nullptr;
  bool sure = false;
};

Verdict verdict(const Layout& layout, std::span<const ExpertTensor> tensors) {
  Verdict out;
  for (const ExpertTensor& t : tensors) {
    const Claim claim = layout.claim(t);
    if (claim == Claim::no) {
      out.refused = &t;
      return out;
    }
    out.sure = out.sure || claim == Claim::sure;
  }
  return out;
}

std::string shown(const ExpertTensor& t) { return t.name + " " + to_string(t.tensor.shape()); }

[[noreturn]] void no_layout(std::span<const ExpertTensor> tensors) {
  for (const ExpertTensor& t : tensors) {
    bool claimed = false;
    for (const Layout* layout : all_layouts()) claimed = claimed || layout->claim(t) != Claim::no;
    if (!claimed)
      throw Error(shown(t), "is a routed-expert tensor of no known layout",
                  "the layout table of REFERENCE.md lists the names that are read");
  }
  for (const Layout* layout : all_layouts()) {
    const Verdict v = verdict(*layout, tensors);
    if (v.refused != nullptr && layout->claim(tensors.front()) == Claim::sure)
      throw Error(shown(*v.refused),
                  fmt::format("does not fit {}, the layout of {}: the file mixes expert layouts",
                              layout->id, shown(tensors.front())),
                  "save the adapter in one layout, or split the file");
  }
  throw Error(shown(tensors.front()), "the expert tensors of this file fit no single layout",
              {"name the layout with ", Option::from});
}

}  // namespace

namespace {

std::optional<ExpertTensor> expert_of(const std::string& name, TensorNameView parsed,
                                      const Tensor& tensor) {
  if (parsed.part != TensorPart::lora_a && parsed.part != TensorPart::lora_b) return std::nullopt;
  auto path = parse_expert_path(parsed.module);
  if (!path) return std::nullopt;
  return ExpertTensor{name, std::move(*path), parsed.part == TensorPart::lora_a ? Side::A : Side::B,
                      tensor};
}

}  // namespace

std::optional<ExpertTensor> expert_tensor(const std::string& name, const TensorName& parsed,
                                          const Tensor& tensor) {
  return expert_of(name, {parsed.module, parsed.part}, tensor);
}

std::vector<ExpertTensor> expert_tensors(const TensorMap& tensors) {
  std::vector<ExpertTensor> out;
  out.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors)
    if (auto expert = wrapper_in(name).empty()
                          ? expert_of(name, view_tensor_name(name), tensor)
                          : expert_tensor(name, parse_tensor_name(name), tensor))
      out.push_back(std::move(*expert));
  return out;
}

const Layout* detect_layout(std::span<const ExpertTensor> tensors) {
  if (tensors.empty()) return nullptr;
  for (const Layout* layout : all_layouts()) {
    const Verdict v = verdict(*layout, tensors);
    if (v.refused == nullptr && v.sure) return layout;
  }
  no_layout(tensors);
}

}  // namespace moelora
