#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moelora {

// A file of a model folder that goes along unchanged: tokenizer, chat template, licence.
struct CarriedFile {
  std::string name, path;
};

inline constexpr uint64_t kMaxCarriedBytes = 256u << 20;

// The files of `folder` except config.json, weights and their indexes, in order of name. What is
// neither weights nor carried along (folders, files above kMaxCarriedBytes, hidden files) is added
// to `left_out`.
std::vector<CarriedFile> other_files(const std::string& folder, std::vector<std::string>& left_out);

// Tensors that a cast to BF16 passes by: a router's correction bias, which models keep in F32
// (transformers' _keep_in_fp32_modules_strict) because rounding it changes which experts are
// chosen.
bool stays_as_it_is(const std::string& tensor_name);

}  // namespace moelora
