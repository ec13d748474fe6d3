#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/io/tensor_writer.h"

namespace moelora {

// A safetensors file as bytes: length, header as given, then `data`. Nothing is checked.
inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i) & 0xFF);
  return out + header + data;
}

// One U8 tensor of shape [size] that fills the file.
inline std::string one_tensor_bytes(const std::string& name, const std::string& data) {
  const std::string n = std::to_string(data.size());
  return safetensors_bytes(
      "{\"" + name + "\":{\"dtype\":\"U8\",\"shape\":[" + n + "],\"data_offsets\":[0," + n + "]}}",
      data);
}

// A header as the writer plans it, and where each tensor lies by name.
struct SafetensorsPlan {
  std::string header;
  std::map<std::string, uint64_t> begin;
  uint64_t file_size = 0;
};

inline SafetensorsPlan plan_safetensors(const TensorMap& tensors,
                                        const std::map<std::string, std::string>& metadata) {
  std::vector<const TensorMap::value_type*> all;
  for (const auto& item : tensors) all.push_back(&item);
  HeaderPlan plan = plan_header(std::move(all), metadata);
  SafetensorsPlan out{std::move(plan.header), {}, plan.file_size};
  for (size_t i = 0; i < plan.tensors.size(); ++i)
    out.begin.emplace(plan.tensors[i]->first, plan.begin[i]);
  return out;
}

// The file that the writer makes of `tensors`, evaluated tensor by tensor.
inline std::string safetensors_bytes(const TensorMap& tensors) {
  const SafetensorsPlan plan = plan_safetensors(tensors, {{"format", "pt"}});
  std::string bytes = plan.header;
  bytes.resize(plan.file_size);
  for (const auto& [name, tensor] : tensors)
    tensor.read(reinterpret_cast<std::byte*>(bytes.data() + plan.begin.at(name)));
  return bytes;
}

}  // namespace moelora
