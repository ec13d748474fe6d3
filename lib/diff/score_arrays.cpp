// Scores as named arrays, which formats/arrays.cpp reads: tokens [n, len] and logprobs [n, len -
// 1], of the longest sequence's length. Shorter ones are filled up with -1 and NaN.

#include <algorithm>
#include <cstring>
#include <limits>

#include "lib/diff/score_file.h"
#include "lib/io/npz_writer.h"
#include "lib/io/tensor_writer.h"

namespace moelora {
namespace {

constexpr int64_t kNoToken = -1;
constexpr double kNoValue = std::numeric_limits<double>::quiet_NaN();

template <class T>
Tensor tensor_of(DType dtype, const Shape& shape, const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return Tensor(std::make_shared<MemorySource>(dtype, std::move(bytes)), shape);
}

Tensor floats(bool wide, const Shape& shape, const std::vector<double>& values) {
  if (wide) return tensor_of(DType::F64, shape, values);
  return tensor_of(DType::F32, shape, std::vector<float>(values.begin(), values.end()));
}

class Arrays {
 public:
  Arrays(const Scores& scores, const ScoreFileOptions& options)
      : scores_(scores), options_(options) {
    for (const Sequence& sequence : scores.sequences) {
      length_ = std::max(length_, sequence.size());
      masked_ = masked_ || !sequence.counted.empty();
      prompts_ = prompts_ || sequence.prompt.has_value();
      for (const auto& top : sequence.top) top_ = std::max(top_, top.size());
    }
  }

  TensorMap make() const {
    const auto n = std::ssize(scores_.sequences), length = static_cast<int64_t>(length_);
    TensorMap out;
    out["tokens"] = tensor_of(DType::I64, {n, length}, tokens());
    out["logprobs"] = floats(options_.wide, {n, length - 1}, logprobs());
    if (masked_) out["mask"] = tensor_of(DType::BOOL, {n, length}, mask());
    if (prompts_) out["prompt_lengths"] = tensor_of(DType::I64, {n}, prompts());
    if (options_.temperature != 1) out["temperature"] = floats(true, {1}, {options_.temperature});
    if (top_ == 0) return out;
    const Shape shape{n, length - 1, static_cast<int64_t>(top_)};
    std::vector<int64_t> ids;
    std::vector<double> values;
    take_top(ids, values);
    out["top_tokens"] = tensor_of(DType::I64, shape, ids);
    out["top_logprobs"] = floats(options_.wide, shape, values);
    return out;
  }

 private:
  std::vector<int64_t> tokens() const {
    std::vector<int64_t> out;
    for (const Sequence& sequence : scores_.sequences) {
      out.insert(out.end(), sequence.tokens.begin(), sequence.tokens.end());
      out.resize(out.size() + length_ - sequence.size(), kNoToken);
    }
    return out;
  }

  std::vector<double> logprobs() const {
    std::vector<double> out;
    for (const Sequence& sequence : scores_.sequences)
      for (size_t i = 1; i < length_; ++i)
        out.push_back(i < sequence.size() && sequence.scored[i] ? sequence.logprobs[i] : kNoValue);
    return out;
  }

  std::vector<uint8_t> mask() const {
    std::vector<uint8_t> out;
    for (const Sequence& sequence : scores_.sequences)
      for (size_t i = 0; i < length_; ++i)
        out.push_back(i < sequence.size() && (sequence.counted.empty() || sequence.counted[i]));
    return out;
  }

  std::vector<int64_t> prompts() const {
    std::vector<int64_t> out;
    for (const Sequence& sequence : scores_.sequences)
      out.push_back(sequence.prompt ? static_cast<int64_t>(*sequence.prompt) : -1);
    return out;
  }

  void take_top(std::vector<int64_t>& ids, std::vector<double>& values) const {
    for (const Sequence& sequence : scores_.sequences)
      for (size_t i = 1; i < length_; ++i) {
        const size_t end = ids.size() + top_;
        if (i < sequence.top.size())
          for (const TopToken& top : sequence.top[i]) {
            ids.push_back(top.token);
            values.push_back(top.logprob);
          }
        ids.resize(end, kNoToken);
        values.resize(end, kNoValue);
      }
  }

  const Scores& scores_;
  const ScoreFileOptions& options_;
  size_t length_ = 1, top_ = 0;
  bool masked_ = false, prompts_ = false;
};

}  // namespace

std::string scores_as_safetensors(const Scores& scores, const ScoreFileOptions& options) {
  const TensorMap arrays = Arrays(scores, options).make();
  std::vector<const TensorMap::value_type*> named;
  for (const auto& item : arrays) named.push_back(&item);
  const HeaderPlan plan = plan_header(named, {{"format", "pt"}});
  std::string out = plan.header;
  out.resize(plan.file_size);
  for (size_t i = 0; i < plan.tensors.size(); ++i)
    plan.tensors[i]->second.read(reinterpret_cast<std::byte*>(out.data()) + plan.begin[i]);
  return out;
}

std::string scores_as_npz(const Scores& scores, const ScoreFileOptions& options) {
  return npz_bytes(Arrays(scores, options).make());
}

}  // namespace moelora
