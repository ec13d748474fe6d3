#include "lib/adapter/layout.h"

#include <fmt/format.h>

#include <array>

#include "lib/base/error.h"

namespace moelora {

namespace {

constexpr std::array kAll = {
#define MOELORA_ENTRY(name) &layouts::name,
#include "layouts.inc"
#undef MOELORA_ENTRY
};

}  // namespace

std::span<const Layout* const> all_layouts() { return kAll; }

const Layout& layout_by_id(std::string_view id) {
  std::string known;
  for (const Layout* layout : kAll) {
    if (layout->id == id) return *layout;
    known += (known.empty() ? "" : ", ") + std::string(layout->id);
  }
  throw Error(std::string(id), "is no layout", "layouts: " + known);
}

std::string written_stem(const WriteContext& context, Form form, int layer) {
  if (context.spec == nullptr) return context.adapter.stem(layer);
  const bool hub = form == Form::hub && context.spec->hub.numbered;
  return context.spec->expert_stem(hub ? Form::hub : Form::memory, layer);
}

}  // namespace moelora
