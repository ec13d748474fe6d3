#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "lib/base/error.h"
#include "lib/io/safetensors.h"
#include "lib/io/tensor_writer.h"

namespace moelora {
namespace {

// Escapes as the reference's JSON writer does: only what JSON demands, anything else raw.
std::string quoted(std::string_view text) {
  constexpr std::string_view kPlain = "\"\\\b\f\n\r\t", kLetter = "\"\\bfnrt";
  std::string out = "\"";
  for (const char c : text) {
    if (const size_t at = kPlain.find(c); at != std::string_view::npos)
      (out += '\\') += kLetter[at];
    else if (static_cast<unsigned char>(c) < 0x20)
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      out += c;
  }
  return out += '"';
}

std::string metadata_text(const std::map<std::string, std::string>& metadata) {
  std::string out;
  for (const auto& [key, value] : metadata)
    out += (out.empty() ? "" : ",") + quoted(key) + ":" + quoted(value);
  return "\"__metadata__\":{" + out + "}";
}

std::string entry_text(const std::string& name, const Tensor& tensor, uint64_t begin) {
  // An extent above 2^63-1 may stand beside a 0; it is kept bit for bit.
  const std::vector<uint64_t> shape(tensor.shape().begin(), tensor.shape().end());
  return fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                     quoted(name), dtype_name(tensor.dtype()), fmt::join(shape, ","), begin,
                     begin + tensor.bytes());
}

using Item = const TensorMap::value_type*;

// By dtype, widest enum value first, then by name: the reference writer's order.
std::vector<Item> canonical_order(const TensorMap& tensors) {
  std::vector<Item> order;
  order.reserve(tensors.size());
  for (const auto& item : tensors) order.push_back(&item);
  std::stable_sort(order.begin(), order.end(),
                   [](Item a, Item b) { return a->second.dtype() > b->second.dtype(); });
  return order;
}

void refuse_unwritable(const std::string& name, const Tensor& tensor) {
  if (name == "__metadata__")
    throw Error(name, "is a name no tensor of a safetensors file may have");
  if (tensor.elements() * dtype_bits(tensor.dtype()) % 8 != 0)
    throw Error(name, fmt::format("{} elements of {} do not fill whole bytes", tensor.elements(),
                                  dtype_name(tensor.dtype())));
}

}  // namespace

SafetensorsPlan plan_safetensors(const TensorMap& tensors,
                                 const std::map<std::string, std::string>& metadata) {
  SafetensorsPlan plan;
  std::string json = metadata.empty() ? "{" : "{" + metadata_text(metadata);
  uint64_t at = 0;
  for (const Item item : canonical_order(tensors)) {
    const auto& [name, tensor] = *item;
    refuse_unwritable(name, tensor);
    if (json.size() > 1) json += ',';
    json += entry_text(name, tensor, at);
    plan.begin.emplace(name, at);
    at += tensor.bytes();
  }
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  if (json.size() > kMaxHeaderBytes)
    throw Error("header",
                fmt::format("would have {} bytes for {} tensors, at most {} can be read",
                            json.size(), tensors.size(), kMaxHeaderBytes),
                "write shards with --max-shard-size");
  const uint64_t length = json.size();
  plan.header.resize(8);
  std::memcpy(plan.header.data(), &length, 8);
  plan.header += json;
  for (auto& [name, begin] : plan.begin) begin += plan.header.size();
  plan.file_size = plan.header.size() + at;
  return plan;
}

}  // namespace moelora
