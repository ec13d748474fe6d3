#pragma once

#include <span>
#include <string>
#include <string_view>

#include "lib/adapter/layout.h"
#include "lib/engine/engine.h"

namespace moelora {

// What decides the layout an adapter is written in for an engine.
struct Situation {
  const EngineChoice& engine;
  const ServerOptions& server;
  const ModelSpec& spec;
  bool shared_outer = false;  // every gate/up A and every down B is one matrix for all experts
};

struct LayoutChoice {
  std::string_view engine;  // id
  std::string_view when;    // for people
  bool (*applies)(const Situation& situation);
  const Layout* layout;
  std::string_view why;
};

// The table, first match wins; every engine has a last row that always applies.
std::span<const LayoutChoice> layout_choices();
const LayoutChoice& choose_layout(const Situation& situation);

// How that layout is written: sides and columns of stacked pairs as the engine's version reads
// them, and the words for an expert's projections.
LayoutWriteOptions write_options(const Situation& situation);

// Whether SGLang must be given one lora_A for gate and up: its virtual experts, and gpt-oss on the
// default path, use gate's A for up too.
bool needs_one_a(const Situation& situation);

}  // namespace moelora
