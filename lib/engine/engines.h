#pragma once

namespace moelora {

struct Engine;

// The engines by name: engines::sglang, engines::vllm ... Each is a folder of lib/engine with an
// engine.cpp that defines `const Engine engines::FOLDER`; the folders are the registry. Code that
// means one engine says this symbol, so that renaming or removing an engine is a compile error.
namespace engines {

#define MOELORA_ENTRY(name) extern const Engine name;
#include "engines.inc"
#undef MOELORA_ENTRY

}  // namespace engines

}  // namespace moelora
