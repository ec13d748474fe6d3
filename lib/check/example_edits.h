#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>

// Changes that the examples of rules make of sound adapters (Breaks::apply). Over std alone, like
// the record of a rule.
namespace moelora {

struct Specimen;  // lib/check/specimen.h

// A member of adapter_config.json, or of the base model's config.json. `json` is the value's text:
// "8", "true", R"("all-linear")".
void set_config(Specimen& specimen, std::string_view key, std::string_view json);
void erase_config(Specimen& specimen, std::string_view key);
void set_base_config(Specimen& specimen, std::string_view key, std::string_view json);
void erase_base_config(Specimen& specimen, std::string_view key);

// An option of the server, as --server-option takes it: "tp-size=3".
void set_option(Specimen& specimen, std::string_view pair);

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

// A pair of the config's rank on `module`, a path without "base_model.model.".
void add_pair(Specimen& specimen, std::string_view module, int64_t in, int64_t out);

}  // namespace moelora
