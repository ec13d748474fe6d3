#include "lib/forward/rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace moelora {
namespace {

// The object that says how, and the config around it.
class RopeConfig {
 public:
  RopeConfig(const FamilySection& section, const RopeRequest& request)
      : section_(section), request_(request), of_(find()) {}

  std::string type() const {
    for (const char* key : {"rope_type", "type"})
      if (const auto found = of_ ? of_->find(key) : std::nullopt) return found->string();
    return "default";
  }

  std::optional<double> find_number(std::string_view key) const {
    if (const auto found = of_ ? of_->find(key) : std::nullopt) return config_number(*found);
    return std::nullopt;
  }

  double number(std::string_view key) const {
    if (const auto found = find_number(key)) return *found;
    of_->fail(fmt::format("the key \"{}\" is missing, which a RoPE of type {} needs", key, type()));
  }

  bool is_false(std::string_view key) const {
    const auto found = of_ ? of_->find(key) : std::nullopt;
    return found && !found->boolean();
  }

  double theta() const {
    if (const auto own = find_number("rope_theta")) return *own;
    if (const auto top = section_.config(request_.theta_key)) return config_number(*top);
    return request_.theta;
  }

  double part() const {
    if (const auto own = find_number("partial_rotary_factor")) return *own;
    const auto top = section_.config("partial_rotary_factor");
    return top ? config_number(*top) : request_.part;
  }

  double original_length() const {
    constexpr std::string_view kKey = "original_max_position_embeddings";
    if (const auto own = find_number(kKey)) return *own;
    if (const auto top = section_.config(kKey)) return config_number(*top);
    return config_number(length());
  }

  double factor() const {
    if (const auto own = find_number("factor")) return *own;
    return config_number(length()) / original_length();
  }

  std::vector<double> numbers(std::string_view key, size_t count) const {
    const JsonView list = of_->at(key);
    std::vector<double> out;
    for (const JsonView& item : list.items()) out.push_back(config_number(item));
    if (out.size() != count)
      list.fail(fmt::format("has {} numbers, expected {}: one a pair", out.size(), count));
    return out;
  }

  [[noreturn]] void fail_type() const {
    of_->fail(
        fmt::format("unknown type of RoPE '{}', expected one of default, linear, dynamic, "
                    "yarn, longrope, llama3, proportional",
                    type()));
  }

 private:
  JsonView length() const {
    if (const auto found = section_.config("max_position_embeddings")) return *found;
    throw Error(section_.base().origin, "the key \"max_position_embeddings\" is missing");
  }

  std::optional<JsonView> find() const {
    auto found = section_.config("rope_parameters");
    if (!found && !request_.is_unscaled) found = section_.config("rope_scaling");
    if (!found || request_.layer_type.empty()) return found;
    auto own = found->find(request_.layer_type);
    return own ? own : found;
  }

  const FamilySection& section_;
  const RopeRequest& request_;
  std::optional<JsonView> of_;
};

std::vector<double> plain_frequencies(double theta, int64_t dims) {
  std::vector<double> out(static_cast<size_t>(dims / 2));
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
  return out;
}

double mscale(double factor, double by) {
  return factor <= 1 ? 1 : 0.1 * by * std::log(factor) + 1;
}

// YaRN: pairs that turn often in the original length keep their frequency, those that hardly turn
// are slowed down by the factor, and between them both are mixed.
void apply_yarn(const RopeConfig& config, double theta, Rope& rope) {
  const double factor = config.factor(), length = config.original_length();
  const auto dims = static_cast<double>(rope.dims);
  const auto pair_of = [&](double turns) {
    return dims * std::log(length / (turns * 2 * std::numbers::pi)) / (2 * std::log(theta));
  };
  const auto or_else = [&](std::string_view key, double otherwise) {
    const double found = config.find_number(key).value_or(0);
    return found == 0 ? otherwise : found;
  };
  double low = pair_of(or_else("beta_fast", 32)), high = pair_of(or_else("beta_slow", 1));
  if (!config.is_false("truncate")) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < rope.frequencies.size(); ++i) {
    const double slow = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    rope.frequencies[i] *= slow / factor + (1 - slow);
  }
  const double by = config.find_number("mscale").value_or(0);
  const double all = config.find_number("mscale_all_dim").value_or(0);
  const double own =
      by != 0 && all != 0 ? mscale(factor, by) / mscale(factor, all) : mscale(factor, 1);
  rope.magnitude = config.find_number("attention_factor").value_or(own);
}

void apply_longrope(const RopeConfig& config, int64_t longest, Rope& rope) {
  const double length = config.original_length(), factor = config.factor();
  const bool is_long = static_cast<double>(longest) > length;
  const std::vector<double> by =
      config.numbers(is_long ? "long_factor" : "short_factor", rope.frequencies.size());
  for (size_t i = 0; i < by.size(); ++i) rope.frequencies[i] /= by[i];
  const double own = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(length));
  const auto given = config.find_number(is_long ? "long_mscale" : "short_mscale");  // Phi-3.5-MoE
  rope.magnitude = given.value_or(config.find_number("attention_factor").value_or(own));
}

void apply_llama3(const RopeConfig& config, Rope& rope) {
  const double factor = config.number("factor"), low = config.number("low_freq_factor");
  const double high = config.number("high_freq_factor"), length = config.original_length();
  for (double& frequency : rope.frequencies) {
    const double wave = 2 * std::numbers::pi / frequency;
    if (wave < length / high) continue;
    const double fast = wave > length / low ? 0 : (length / wave - low) / (high - low);
    frequency *= fast + (1 - fast) / factor;
  }
}

// NTK: the base grows with the length, where it is above the model's; by a fixed alpha in
// Hunyuan's.
void apply_dynamic(const RopeConfig& config, double theta, int64_t longest, Rope& rope) {
  const auto dims = static_cast<double>(rope.dims);
  if (const double alpha = config.find_number("alpha").value_or(0); alpha != 0) {
    rope.frequencies = plain_frequencies(theta * std::pow(alpha, dims / (dims - 2)), rope.dims);
    return;
  }
  const double length = config.original_length(), factor = config.number("factor");
  const double n = std::max(static_cast<double>(longest), length);
  const double base = theta * std::pow(factor * n / length - (factor - 1), dims / (dims - 2));
  rope.frequencies = plain_frequencies(base, rope.dims);
}

// The pairs of the whole head, of which only the first part turns.
void apply_proportional(const RopeConfig& config, double theta, int64_t dims, Rope& rope) {
  const double factor = config.find_number("factor").value_or(1);
  const auto turning = static_cast<size_t>(config.part() * static_cast<double>(dims) / 2);
  rope.dims = dims;
  rope.frequencies = plain_frequencies(theta, dims);
  for (size_t i = 0; i < rope.frequencies.size(); ++i)
    rope.frequencies[i] = i < turning ? rope.frequencies[i] / factor : 0;
}

}  // namespace

Rope make_rope(const FamilySection& section, const RopeRequest& request) {
  const RopeConfig config(section, request);
  const double theta = config.theta();
  Rope out;
  out.pairs = request.pairs;
  out.dims = request.rotated.value_or(
      static_cast<int64_t>(config.part() * static_cast<double>(request.dims)));
  out.frequencies = plain_frequencies(theta, out.dims);
  const std::string type = config.type();
  if (type == "default") return out;
  if (type == "linear") {
    for (double& frequency : out.frequencies) frequency /= config.number("factor");
  } else if (type == "yarn") {
    apply_yarn(config, theta, out);
  } else if (type == "longrope") {
    apply_longrope(config, request.longest, out);
  } else if (type == "llama3") {
    apply_llama3(config, out);
  } else if (type == "dynamic") {
    apply_dynamic(config, theta, request.longest, out);
  } else if (type == "proportional") {
    apply_proportional(config, theta, request.dims, out);
  } else {
    config.fail_type();
  }
  return out;
}

RopeRequest rope_request(const FamilySection& rope, int64_t dims, int64_t longest) {
  rope.allow_only({"pairs", "interleaved", "theta", "theta_key", "layer_type", "unscaled", "part",
                   "dims", "rotated"});
  RopeRequest out;
  out.dims = rope.size("dims", dims);
  out.pairs = static_cast<RopePairs>(rope.one_of("pairs", {"halves", "interleaved"}));
  if (rope.flag("interleaved")) out.pairs = RopePairs::interleaved;
  out.theta = rope.number("theta", out.theta);
  out.theta_key = rope.text("theta_key", out.theta_key);
  out.part = rope.number("part", out.part);
  out.layer_type = rope.text("layer_type");
  out.is_unscaled = rope.flag("unscaled");
  if (const int64_t rotated = rope.size("rotated", 0)) out.rotated = rotated;
  out.longest = longest;
  return out;
}

double yarn_score_scale(const FamilySection& section) {
  const RopeRequest request;
  const RopeConfig config(section, request);
  const double all = config.find_number("mscale_all_dim").value_or(0);
  if (config.type() == "default" || all == 0) return 1;
  const double one = mscale(config.number("factor"), all);
  return one * one;
}

template <class T>
RopeTurns<T>::RopeTurns(const Rope& rope, int64_t count) : pairs_(rope.pairs) {
  const auto half = static_cast<int64_t>(rope.frequencies.size());
  cos_.resize(count, half);
  sin_.resize(count, half);
  for (int64_t position = 0; position < count; ++position)
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * rope.frequencies[static_cast<size_t>(i)];
      cos_(position, i) = static_cast<T>(std::cos(angle) * rope.magnitude);
      sin_(position, i) = static_cast<T>(std::sin(angle) * rope.magnitude);
    }
}

template <class T>
void RopeTurns<T>::apply(int64_t position, T* head) const {
  const int64_t half = cos_.cols();
  const bool halves = pairs_ == RopePairs::halves;
  for (int64_t i = 0; i < half; ++i) {
    const T c = cos_(position, i), s = sin_(position, i);
    T& a = head[halves ? i : 2 * i];
    T& b = head[halves ? i + half : 2 * i + 1];
    const T turned = a * c - b * s;
    b = b * c + a * s;
    a = turned;
  }
}

template <class T>
void turn_heads(const RopeTurns<T>& turns, const Batch& batch, int64_t width, int64_t offset,
                Matrix<T>& m) {
  for (int64_t s = 0; s < batch.sequences(); ++s)
    for (int64_t i = 0; i < batch.length(s); ++i)
      for (int64_t at = offset; at < m.cols(); at += width)
        turns.apply(i, m.row(batch.first(s) + i).data() + at);
}

template class RopeTurns<float>;
template class RopeTurns<double>;
template void turn_heads(const RopeTurns<float>&, const Batch&, int64_t, int64_t, Matrix<float>&);
template void turn_heads(const RopeTurns<double>&, const Batch&, int64_t, int64_t, Matrix<double>&);

}  // namespace moelora
