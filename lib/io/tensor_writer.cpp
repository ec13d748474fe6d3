#include "lib/io/tensor_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "lib/base/error.h"
#include "lib/base/parallel.h"
#include "lib/base/progress_meter.h"
#include "lib/io/evaluate.h"
#include "lib/io/safetensors_header.h"
#include "lib/io/shard_index.h"

namespace moelora {

// ---- shards ----

namespace {

bool is_escaped(char c) { return static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\'; }

// As the reference writer has it: only what JSON demands is escaped, what nobody sees stays raw.
std::string header_string(std::string_view text) {
  constexpr std::string_view kEscaped = "\"\\\b\f\n\r\t", kShort = "\"\\bfnrt";
  std::string out = "\"";
  for (;;) {
    const auto plain =
        static_cast<size_t>(std::find_if(text.begin(), text.end(), is_escaped) - text.begin());
    out += text.substr(0, plain);
    if (plain == text.size()) return out += '"';
    if (const size_t i = kEscaped.find(text[plain]); i != std::string_view::npos)
      (out += '\\') += kShort[i];
    else
      out += fmt::format("\\u{:04x}", text[plain]);
    text.remove_prefix(plain + 1);
  }
}

// An upper bound of a header entry: offsets have at most 20 digits.
uint64_t header_bytes(const std::string& name, const Tensor& tensor) {
  const bool plain = std::none_of(name.begin(), name.end(), is_escaped);
  const uint64_t text = plain ? name.size() + 2 : header_string(name).size();
  return text + 100 + 21 * static_cast<uint64_t>(tensor.rank());
}

}  // namespace

std::vector<Shard> split_shards(const std::string& stem, const TensorMap& tensors,
                                uint64_t max_bytes) {
  std::vector<Shard> shards(1);
  uint64_t bytes = 0, header = 0;
  for (const TensorMap::value_type& item : tensors) {
    const auto& [name, tensor] = item;
    const uint64_t more = tensor.bytes(), more_header = header_bytes(name, tensor);
    const bool full = (max_bytes != 0 && bytes + more > max_bytes) ||
                      header + more_header > kHubHeaderBytes - 65536;
    if (full && !shards.back().tensors.empty()) {
      shards.emplace_back();
      bytes = header = 0;
    }
    shards.back().tensors.push_back(&item);
    bytes += more;
    header += more_header;
  }
  for (size_t i = 0; i < shards.size(); ++i)
    shards[i].file = shards.size() == 1 ? stem + std::string(kSafetensorsEnding)
                                        : shard_name(stem, i + 1, shards.size());
  return shards;
}

// ---- the header ----

namespace {

std::string metadata_text(const std::map<std::string, std::string>& metadata) {
  std::string out;
  for (const auto& [key, value] : metadata)
    out += (out.empty() ? "" : ",") + header_string(key) + ":" + header_string(value);
  return "\"__metadata__\":{" + out + "}";
}

void add_entry(std::string& json, const std::string& name, const Tensor& tensor, uint64_t begin) {
  // An extent above 2^63-1 may stand beside a 0; it is kept bit for bit.
  const std::vector<uint64_t> shape(tensor.shape().begin(), tensor.shape().end());
  fmt::format_to(std::back_inserter(json),
                 "{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                 header_string(name), dtype_name(tensor.dtype()), fmt::join(shape, ","), begin,
                 begin + tensor.bytes());
}

// By dtype, widest enum value first, then by name: the reference writer's order.
bool canonically_before(const TensorMap::value_type* a, const TensorMap::value_type* b) {
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

HeaderPlan plan_header(std::vector<const TensorMap::value_type*> tensors,
                       const std::map<std::string, std::string>& metadata, int threads) {
  if (!std::is_sorted(tensors.begin(), tensors.end(), canonically_before))  // by name they are
    std::sort(tensors.begin(), tensors.end(), canonically_before);
  HeaderPlan plan;
  std::vector<uint64_t>& begin = plan.begin;
  uint64_t size = 0;
  for (const TensorMap::value_type* item : tensors) {
    refuse_unwritable(item->first, item->second);
    begin.push_back(size);
    size += item->second.bytes();
  }
  std::string json = metadata.empty() ? "{" : "{" + metadata_text(metadata);
  const bool comma = json.size() > 1;
  json += parallel_text(
      std::ssize(tensors), threads, [&](int64_t first, int64_t last, std::string& text) {
        for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
          if (i > 0 || comma) text += ',';
          add_entry(text, tensors[i]->first, tensors[i]->second, begin[i]);
        }
      });
  plan.header = with_length(json + "}", tensors.size());
  plan.tensors = std::move(tensors);
  for (uint64_t& at : begin) at += plan.header.size();
  plan.file_size = plan.header.size() + size;
  return plan;
}

// ---- writing ----

namespace {

// All shards of one call: planned and created first, then filled together.
class WeightsWriter {
 public:
  WeightsWriter(OutputFolder& out, const WriteOptions& options) : out_(out), options_(options) {}

  void create(const Shard& shard) {
    const HeaderPlan plan = plan_header(shard.tensors, options_.metadata, options_.threads);
    files_.push_back(out_.create(shard.file, plan.file_size));
    files_.back()->write(0, std::as_bytes(std::span(plan.header)));
    written_.files.push_back(shard.file);
    for (size_t i = 0; i < plan.tensors.size(); ++i) {
      names_.push_back(&plan.tensors[i]->first);
      tensors_.push_back(&plan.tensors[i]->second);
      places_.push_back({files_.size() - 1, plan.begin[i]});
      written_.bytes += tensors_.back()->bytes();
    }
  }

  WrittenWeights fill() {
    ProgressMeter progress("writing", written_.bytes, options_.job);
    std::vector<std::string> digests =
        evaluate_tensors(tensors_, places_, {options_.threads, options_.memory, options_.digests},
                         [&](size_t file, uint64_t offset, std::span<const std::byte> bytes) {
                           files_[file]->write(offset, bytes);
                           progress.add(bytes.size());
                         });
    for (size_t i = 0; i < names_.size(); ++i)
      written_.tensors.emplace_hint(
          written_.tensors.end(), *names_[i],
          WrittenTensor{written_.files[places_[i].file], std::move(digests[i])});
    return std::move(written_);
  }

 private:
  OutputFolder& out_;
  const WriteOptions& options_;
  std::vector<OutputFilePtr> files_;
  std::vector<const std::string*> names_;  // of all shards, in the order of the files
  std::vector<const Tensor*> tensors_;
  std::vector<Place> places_;
  WrittenWeights written_;
};

std::map<std::string, std::string> files_of(const WrittenWeights& written) {
  std::map<std::string, std::string> out;
  for (const auto& [tensor, where] : written.tensors)
    out.emplace_hint(out.end(), tensor, where.file);
  return out;
}

}  // namespace

WrittenWeights write_weights(OutputFolder& out, const std::string& stem, const TensorMap& tensors,
                             const WriteOptions& options) {
  WeightsWriter writer(out, options);
  const std::vector<Shard> shards = split_shards(stem, tensors, options.max_shard_size);
  for (const Shard& shard : shards) writer.create(shard);
  WrittenWeights written = writer.fill();
  if (shards.size() > 1) {
    const std::string index = stem + std::string(kIndexEnding);
    out.write_text(index, shard_index_text(files_of(written), written.bytes));
    written.files.push_back(index);
  }
  return written;
}

}  // namespace moelora
