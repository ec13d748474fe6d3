#include "lib/diff/comparison.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>

#include "lib/base/nearest.h"
#include "lib/base/utf8.h"
#include "lib/io/input_watch.h"

namespace moelora {
namespace {

constexpr std::string_view kSglang =
    "sgl-project/sglang test/registered/lora/test_lora_*_logprob_diff.py, 2026-08-21; what it "
    "prints as KL is k2";

constexpr std::array<Preset, 15> kPresets = {{
    {"sglang-qwen3-8b", "k2", 5e-3, kSglang},
    {"sglang-qwen3-30b-a3b", "k2", 6e-3, kSglang},
    {"sglang-qwen3-vl-30b-a3b", "k2", 5e-3, kSglang},
    {"sglang-gpt-oss-20b", "k2", 5e-3, kSglang},
    {"sglang-deepseek-v3.1", "k2", 6e-3, kSglang},
    {"sglang-kimi-k2.5", "k2", 1.5e-2, kSglang},
    {"sglang-nemotron-3-super", "k2", 2.5e-3, kSglang},
    {"sglang-qwen3.5-35b-a3b", "k2", 1e-3, kSglang},
    {"sglang-qwen3.5-4b", "k2", 4e-3, kSglang},
    {"sglang-tp", "max_abs", 5e-4, "sgl-project/sglang test_lora_moe_tp_logprob_diff.py"},
    {"sglang-chunked", "max_abs", 5e-3, "the chunked-logprob variant of the same test"},
    {"sglang-hf", "max_abs", 1e-1, "sgl-project/sglang test_lora_hf_sgl_logprob_diff.py"},
    {"slime", "mean_abs", 0.1, "THUDM/slime, mean absolute difference"},
    {"miles", "mean_abs", 1e-3, "miles logprob_comparator.py"},
    {"verl", "prob_mean_abs", 5e-3, "verl, healthy mean of rollout_probs_diff"},
}};

constexpr double kFloorFactor = 2, kLeastFloor = 0.05;  // close: max(2 x floor, 0.05 nat)

ScoreFile read_next(const std::string& path, const JobControl& job) {
  job.check();
  return read_scores(path);
}

double mean_distance(const Scores& a, const Scores& b) {
  return measure(align(a, b).pairs).mean_abs;
}

std::optional<Metrics> measure_part(const std::vector<ScorePair>& pairs,
                                    const std::function<bool(const ScorePair&)>& wanted) {
  std::vector<ScorePair> part;
  std::copy_if(pairs.begin(), pairs.end(), std::back_inserter(part), wanted);
  if (part.empty()) return std::nullopt;
  return measure(part);
}

std::vector<std::pair<size_t, Metrics>> measure_sequences(const std::vector<ScorePair>& pairs) {
  std::vector<std::pair<size_t, Metrics>> out;
  const std::span<const ScorePair> all = pairs;  // sequence after sequence
  for (size_t begin = 0, end = 0; begin < all.size(); begin = end) {
    while (end < all.size() && all[end].sequence == all[begin].sequence) ++end;
    out.emplace_back(all[begin].sequence, measure(all.subspan(begin, end - begin)));
  }
  std::stable_sort(out.begin(), out.end(), [](const auto& x, const auto& y) {
    return x.second.mean_abs > y.second.mean_abs;
  });
  return out;
}

// The effect of the adapter at every position that both scored, as pairs of (e_A, e_B).
std::vector<ScorePair> effects(const Alignment& adapted, const Alignment& base_a,
                               const Alignment& base_b) {
  using Place = std::pair<size_t, size_t>;
  const auto effect = [](const Alignment& alignment) {
    std::map<Place, double> out;
    for (const ScorePair& p : alignment.pairs) out[{p.sequence, p.position}] = p.d();
    return out;
  };
  const std::map<Place, double> in_a = effect(base_a), in_b = effect(base_b);
  std::vector<ScorePair> out;
  for (const ScorePair& p : adapted.pairs) {
    const auto x = in_a.find({p.sequence, p.position}), y = in_b.find({p.sequence, p.position});
    if (x != in_a.end() && y != in_b.end())
      out.push_back({p.sequence, p.position, p.token, x->second, y->second, p.prompt});
  }
  return out;
}

double mean_size(const std::vector<ScorePair>& pairs, double ScorePair::*side) {
  return mean(pairs, [&](const ScorePair& p) { return std::fabs(p.*side); });
}

class Comparer {
 public:
  Comparer(ScoreFile first, std::optional<ScoreFile> second, const CompareLogprobsOptions& options)
      : o_(options) {
    out_.a = std::move(first.first);
    out_.b = second ? std::move(second->first) : std::move(*first.second);
  }

  Comparison run() {
    out_.alignment = align(out_.a, out_.b);
    gather_notes();
    measure_all();
    check_thresholds();
    if (!o_.floor.empty() || o_.floor_mean) check_floor();
    if (!o_.base_a.empty() || !o_.base_b.empty()) check_effect();
    if (!o_.candidates.empty()) check_routing();
    conclude();
    return std::move(out_);
  }

 private:
  void gather_notes() {
    for (const Scores* side : {&out_.a, &out_.b})
      for (const std::string& note : side->notes) out_.notes.push_back(side->path + ": " + note);
    const auto& notes = out_.alignment.notes;
    out_.notes.insert(out_.notes.end(), notes.begin(), notes.end());
    out_.suspicions = suspicions(out_.a, out_.b, out_.alignment);
  }

  void measure_all() {
    const auto& pairs = out_.alignment.pairs;
    out_.metrics = measure(pairs);
    if (out_.alignment.knows_prompt) {
      out_.prompt = measure_part(pairs, [](const ScorePair& p) { return p.prompt; });
      out_.response = measure_part(pairs, [](const ScorePair& p) { return !p.prompt; });
    }
    out_.by_sequence = measure_sequences(pairs);
    out_.top = measure_top(out_.a, out_.b, out_.alignment);
    out_.worst = worst_pairs(pairs, o_.worst);
  }

  void state(std::string id, bool holds, std::string text) {
    out_.statements.push_back({std::move(id), holds, std::move(text)});
  }

  void check_thresholds() {
    const auto named = out_.metrics.named();
    for (const Threshold& t : o_.thresholds) {
      const auto at = std::find_if(named.begin(), named.end(),
                                   [&](const auto& entry) { return entry.first == t.metric; });
      if (at == named.end())
        throw Error(t.from, t.metric + " is not defined for these values: one side is constant",
                    "use another metric");
      const bool holds = at->second <= t.most;
      state("threshold", holds,
            fmt::format("{} {:.6g} {} {:g} ({})", t.metric, at->second, holds ? "<=" : ">", t.most,
                        t.from));
    }
  }

  double distance_of_repeat() const {
    const ScoreFile repeat = read_next(o_.floor, o_.job);
    return repeat.second ? mean_distance(repeat.first, *repeat.second)
                         : mean_distance(out_.b, repeat.first);
  }

  void check_floor() {
    out_.floor = o_.floor_mean ? *o_.floor_mean : distance_of_repeat();
    const double most = std::max(kFloorFactor * *out_.floor, kLeastFloor);
    const bool holds = out_.metrics.mean_abs <= most;
    state("close", holds,
          fmt::format("mean_abs {:.6g} {} {:.6g} = max(2 x floor {:.6g}, {} nat, the least)",
                      out_.metrics.mean_abs, holds ? "<=" : ">", most, *out_.floor, kLeastFloor));
  }

  // The adapter has an effect at all: B is nearer to A than to the base model.
  void check_effect() {
    const std::string& path = !o_.base_b.empty() ? o_.base_b : o_.base_a;
    const Scores base = read_next(path, o_.job).first;
    const double to_base = mean_distance(base, out_.b), to_a = out_.metrics.mean_abs;
    const bool holds = to_a < to_base;
    state("applied", holds,
          fmt::format("B is {:.6g} from A and {:.6g} from the base model{}", to_a, to_base,
                      holds ? "" : ": the adapter is not applied"));
    if (!o_.base_a.empty() && !o_.base_b.empty()) measure_delta(base);
  }

  void measure_delta(const Scores& base_b) {
    const Scores base_a = read_next(o_.base_a, o_.job).first;
    const std::vector<ScorePair> pairs =
        effects(out_.alignment, align(base_a, out_.a), align(base_b, out_.b));
    if (pairs.empty()) throw Error(o_.base_a, "shares no scored position with the adapted sides");
    const Metrics m = measure(pairs);
    const double a = mean_size(pairs, &ScorePair::a), b = mean_size(pairs, &ScorePair::b);
    const double percent = a > 0 ? 100 * m.mean_abs / a : 0;
    out_.delta = {m.n, a, b, m.mean_abs, m.p95_abs, m.max_abs, percent, m.pearson};
  }

  void check_routing() {
    std::string nearest;
    double least = out_.metrics.mean_abs;
    for (const std::string& path : o_.candidates) {
      const double distance = mean_distance(read_next(path, o_.job).first, out_.b);
      if (distance >= least) continue;
      least = distance;
      nearest = path;
    }
    state("routed", nearest.empty(),
          nearest.empty()
              ? fmt::format("of {} candidates A is the nearest to B", o_.candidates.size() + 1)
              : fmt::format("B is nearer to {} ({:.6g}) than to A ({:.6g})", nearest, least,
                            out_.metrics.mean_abs));
  }

  // Values that are not numbers are never the same, whatever the others say.
  void conclude() {
    if (out_.alignment.not_finite > 0)
      state("finite", false,
            fmt::format("{} positions are NaN or infinite", out_.alignment.not_finite));
    if (out_.statements.empty()) return;
    const bool all = std::all_of(out_.statements.begin(), out_.statements.end(),
                                 [](const Statement& s) { return s.holds; });
    out_.verdict = all ? Verdict::same : Verdict::different;
  }

  const CompareLogprobsOptions& o_;
  Comparison out_;
};

// "k2=5e-3".
Threshold parse_threshold(const std::string& text) {
  const size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  const std::vector<std::string_view> known = Metrics::names();
  const std::string hint = fmt::format("metrics: {}", fmt::join(known, ", "));
  if (equals == std::string::npos || equals == 0)
    throw Error(at_option(Option::max, printable(text)), "is not METRIC=VALUE", hint);
  if (std::find(known.begin(), known.end(), name) == known.end())
    throw unknown_word(at_option(Option::max), "metric", name, known, hint);
  double most = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + equals + 1, end, most);
  if (parsed.ec != std::errc() || parsed.ptr != end || !std::isfinite(most))
    throw Error(at_option(Option::max, printable(text)), "does not end in a number",
                {"for example ", Option::max, " k2=5e-3"});
  return {name, most, "--max"};
}

// All that decide: given as such, by text or by name.
CompareLogprobsOptions with_thresholds(CompareLogprobsOptions options) {
  for (const std::string& text : options.most) options.thresholds.push_back(parse_threshold(text));
  for (const std::string& name : options.presets) {
    const Preset& preset = preset_by_name(name);
    options.thresholds.push_back(
        {std::string(preset.metric), preset.most, std::string(preset.name)});
  }
  return options;
}

}  // namespace

std::span<const Preset> all_presets() { return kPresets; }

const Preset& preset_by_name(std::string_view name) {
  std::vector<std::string_view> known;
  for (const Preset& preset : kPresets) {
    if (preset.name == name) return preset;
    known.push_back(preset.name);
  }
  throw unknown_word(at_option(Option::preset), "preset", name, known);
}

std::string_view verdict_name(Verdict verdict) {
  constexpr std::array<std::string_view, 3> kNames = {"same", "different", "not judged"};
  return kNames[static_cast<size_t>(verdict)];
}

Comparison compare_logprobs(const std::string& a, const std::string& b,
                            const CompareLogprobsOptions& options) {
  const InputWatch watch;
  const CompareLogprobsOptions decided = with_thresholds(options);
  ScoreFile first = read_next(a, options.job);
  if (b.empty() && !first.second)
    throw Error(a, "holds the scores of one system: there is nothing to compare them with",
                "name the other side's file too");
  std::optional<ScoreFile> second;
  if (!b.empty()) second = read_next(b, options.job);
  Comparison out = Comparer(std::move(first), std::move(second), decided).run();
  watch.check();
  return out;
}

Comparison compare_logprobs(Scores a, Scores b, const CompareLogprobsOptions& options) {
  const InputWatch watch;  // of the files that the options name
  const CompareLogprobsOptions decided = with_thresholds(options);
  options.job.check();
  Comparison out = Comparer({std::move(a), {}}, ScoreFile{std::move(b), {}}, decided).run();
  watch.check();
  return out;
}

std::string comparison_report(const Comparison& c, std::string_view format, bool with_scores,
                              const PageOrigin& origin) {
  constexpr std::array<std::string_view, 3> kFormats = {"text", "json", "html"};
  if (format == "text") return comparison_text(c);
  if (format == "json") return comparison_json(c, with_scores);
  if (format == "html") return comparison_html(c, origin);
  throw unknown_word(at_option(Option::format), "format", format, kFormats);
}

}  // namespace moelora
