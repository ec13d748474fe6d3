#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "lib/adapter/dialect.h"

namespace moelora {

// What the files of dialects/ share.

// Whether a name holds one of these texts; whether it ends in one.
bool has_any(std::string_view name, std::initializer_list<std::string_view> parts);
bool ends_in_one(std::string_view name, std::initializer_list<std::string_view> endings);

// The name without a ".weight" at its end.
std::string_view without_weight(std::string_view name);

// The last component but ".weight".
std::string_view last_word(std::string_view name);

// "lora_gate_and_up_A": a word between lora_ and the side, whose letters are given.
bool is_lora_word(std::string_view word, char a, char b);

// Adds a translated tensor and remembers its name in the file, `from`. Throws Error where the name
// is taken: two tensors of the file are the same factor.
void put(Translation& out, const std::string& from, const std::string& to, Tensor tensor);

// PEFT's config of a plain LoRA: r, lora_alpha and what never differs. Targets follow from tensors.
// Throws Error at `where` for an alpha that is not finite.
Json peft_config(const std::string& where, int64_t r, double alpha);

// Error of a dialect that cannot be read without a base model: `why` completes the sentence "NAME:
// ...", "joins q, k and v, and how many heads each has is not known".
Error needs_base(const std::string& name, const std::string& why);

// The base model that names which `owns` knows are read with. Null for a file that has none of
// them, which is passed on as it is. Throws needs_base() where none is known.
const ModelSpec* base_of_names(const ForeignAdapter& in, bool (*owns)(std::string_view),
                               const std::string& why, Translation& out);

}  // namespace moelora
