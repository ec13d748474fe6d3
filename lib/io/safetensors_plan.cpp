#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "lib/base/error.h"
#include "lib/io/header_plan.h"
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

void add_entry(std::string& json, const std::string& name, const Tensor& tensor, uint64_t begin) {
  // An extent above 2^63-1 may stand beside a 0; it is kept bit for bit.
  const std::vector<uint64_t> shape(tensor.shape().begin(), tensor.shape().end());
  fmt::format_to(std::back_inserter(json),
                 "{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", quoted(name),
                 dtype_name(tensor.dtype()), fmt::join(shape, ","), begin, begin + tensor.bytes());
}

// By dtype, widest enum value first, then by name: the reference writer's order.
bool canonically_before(const NamedTensor* a, const NamedTensor* b) {
  if (a->second.dtype() != b->second.dtype()) return a->second.dtype() > b->second.dtype();
  return a->first < b->first;
}

void refuse_unwritable(const std::string& name, const Tensor& tensor) {
  if (name == "__metadata__")
    throw Error(name, "is a name no tensor of a safetensors file may have");
  if (tensor.elements() * dtype_bits(tensor.dtype()) % 8 != 0)
    throw Error(name, fmt::format("{} elements of {} do not fill whole bytes", tensor.elements(),
                                  dtype_name(tensor.dtype())));
}

// The JSON text with its length before it, padded to a multiple of 8.
std::string with_length(std::string json, size_t tensors) {
  json.resize((json.size() + 7) / 8 * 8, ' ');
  if (json.size() > kMaxHeaderBytes)
    throw Error("header",
                fmt::format("would have {} bytes for {} tensors, at most {} can be read",
                            json.size(), tensors, kMaxHeaderBytes),
                {"write shards with ", Option::max_shard_size});
  const uint64_t length = json.size();
  std::string header(8, '\0');
  std::memcpy(header.data(), &length, 8);
  return header + json;
}

}  // namespace

HeaderPlan plan_header(std::vector<const NamedTensor*> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::sort(tensors.begin(), tensors.end(), canonically_before);
  HeaderPlan plan;
  std::string json = metadata.empty() ? "{" : "{" + metadata_text(metadata);
  uint64_t at = 0;
  for (const NamedTensor* item : tensors) {
    const auto& [name, tensor] = *item;
    refuse_unwritable(name, tensor);
    if (json.size() > 1) json += ',';
    add_entry(json, name, tensor, at);
    plan.begin.push_back(at);
    at += tensor.bytes();
  }
  plan.header = with_length(json + "}", tensors.size());
  plan.tensors = std::move(tensors);
  for (uint64_t& begin : plan.begin) begin += plan.header.size();
  plan.file_size = plan.header.size() + at;
  return plan;
}

SafetensorsPlan plan_safetensors(const TensorMap& tensors,
                                 const std::map<std::string, std::string>& metadata) {
  std::vector<const NamedTensor*> all;
  for (const NamedTensor& item : tensors) all.push_back(&item);
  HeaderPlan plan = plan_header(std::move(all), metadata);
  SafetensorsPlan out{std::move(plan.header), {}, plan.file_size};
  for (size_t i = 0; i < plan.tensors.size(); ++i)
    out.begin.emplace(plan.tensors[i]->first, plan.begin[i]);
  return out;
}

}  // namespace moelora
