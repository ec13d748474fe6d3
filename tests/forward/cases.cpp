#include "tests/forward/cases.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "lib/base/cast.h"
#include "lib/io/json.h"
#include "lib/io/safetensors.h"

namespace moelora::test {
namespace {

const std::string kData = std::string(MOELORA_TEST_DATA) + "/";

TensorMap answers_of(const std::string& family) {
  return open_safetensors(kData + "forward/" + family + "/answers.safetensors").tensors;
}

std::string member_of(const Json& item, std::string_view key) {
  const Json* found = item.find(key);
  return found == nullptr ? "" : found->as_string();
}

}  // namespace

std::vector<ForwardCase> forward_cases() {
  std::vector<ForwardCase> out;
  const Json list = read_json_file(kData + "forward/cases.json");
  for (const Json& item : list.items()) {
    const std::string adapter = member_of(item, "adapter");
    out.push_back({member_of(item, "family"), member_of(item, "name"),
                   kData + member_of(item, "base"), adapter.empty() ? "" : kData + adapter});
  }
  return out;
}

ForwardCase forward_case(const std::string& family, const std::string& name) {
  for (ForwardCase& found : forward_cases())
    if (found.family == family && found.name == name) return found;
  throw std::runtime_error("no case " + family + " " + name);
}

BaseModel ForwardCase::open() const { return open_base(base); }

std::optional<LoadedAdapter> ForwardCase::load(const ReadOptions& read) const {
  if (adapter.empty()) return std::nullopt;
  LoadOptions options;
  options.base = base;
  options.read = read;
  // H = I, and one adapter holds down_proj alone.
  if (family == "gpt_oss_square" && !read.roles) options.read.roles = Roles::natural;
  return load_adapter(adapter, options);
}

Tokens ForwardCase::tokens() const {
  const Tensor ids = answers_of(family).at("input_ids");
  const std::vector<std::byte> bytes = ids.read();
  const auto length = static_cast<size_t>(ids.dim(1));
  Tokens out(static_cast<size_t>(ids.dim(0)), std::vector<int64_t>(length));
  for (size_t s = 0; s < out.size(); ++s)
    std::memcpy(out[s].data(), bytes.data() + s * length * 8, length * 8);
  return out;
}

std::vector<double> ForwardCase::answer() const {
  return read_double(answers_of(family).at(name + ".token_logprobs"));
}

std::vector<double> ForwardCase::exact_answer() const {
  const TensorMap answers =
      open_safetensors(kData + "forward_exact/" + family + ".safetensors").tensors;
  const auto found = answers.find(name + ".token_logprobs");
  return found == answers.end() ? std::vector<double>() : read_double(found->second);
}

std::vector<double> scores_of(const BaseModel& base, const Adapter* adapter, const Tokens& tokens,
                              Precision precision) {
  ScoreOptions options;
  options.precision = precision;
  std::vector<double> out;
  for (const TokenScores& scores : score_tokens(base, adapter, tokens, options))
    out.insert(out.end(), scores.logprobs.begin(), scores.logprobs.end());
  return out;
}

std::vector<double> scores_of(const ForwardCase& of, Precision precision) {
  const auto adapter = of.load();
  return scores_of(of.open(), adapter ? &adapter->adapter : nullptr, of.tokens(), precision);
}

double apart(const std::vector<double>& a, const std::vector<double>& b) {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  if (a.size() != b.size() || a.empty()) return kNever;
  double out = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double off = std::abs(a[i] - b[i]);
    if (!(off < kNever)) return kNever;
    out = std::max(out, off);
  }
  return out;
}

}  // namespace moelora::test
