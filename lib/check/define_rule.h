#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "lib/check/rule.h"

// What each file of rules/ includes: the record, its own name, and what examples are made with.
namespace moelora {

#define MOELORA_ENTRY(name) extern const Rule name;
#include "rules.inc"
#undef MOELORA_ENTRY

// Changes that the examples make of sound adapters (Breaks::apply).

// Of the adapter's tensors, those with `part` in their names; returns how many.
size_t remove_tensors(Specimen& specimen, std::string_view part);
size_t rename_tensors(Specimen& specimen, std::string_view part, std::string_view to);
void replace_tensors(Specimen& specimen, std::string_view part,
                     std::initializer_list<int64_t> shape);  // random, F32
void cut_tensors(Specimen& specimen, std::string_view part, int axis, int64_t extent);

// One more tensor, random, F32.
void set_tensor(Specimen& specimen, std::string_view name, std::initializer_list<int64_t> shape);

// A module's tensors and its name in target_modules.
void remove_module(Specimen& specimen, std::string_view leaf);

// Another target_modules.
void set_targets(Specimen& specimen, std::initializer_list<std::string_view> targets);

// A pair on `module`, a path without "base_model.model.", random, F32; or one of the config's rank.
void set_pair(Specimen& specimen, std::string_view module, std::initializer_list<int64_t> a,
              std::initializer_list<int64_t> b);
void add_pair(Specimen& specimen, std::string_view module, int64_t in, int64_t out);

}  // namespace moelora
