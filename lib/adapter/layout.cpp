#include "lib/adapter/layout.h"

#include <fmt/format.h>

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

std::string written_stem(const WriteContext& context, Form form, int layer) {
  if (context.spec == nullptr) return context.adapter.stem(layer);
  const bool hub = form == Form::hub && context.spec->hub.numbered;
  return context.spec->expert_stem(hub ? Form::hub : Form::memory, layer);
}

}  // namespace moelora
