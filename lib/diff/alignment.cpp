#include "lib/diff/alignment.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

constexpr double kSuspect = 0.5;      // another reading must halve the mean difference
constexpr double kNoticeable = 0.02;  // nats; below, there is nothing to explain

std::string against(const Scores& a, const Scores& b) {
  return fmt::format("{}{} against {}{}", a.path, a.side.empty() ? "" : ":" + a.side, b.path,
                     b.side.empty() ? "" : ":" + b.side);
}

void check_counts(const Scores& a, const Scores& b) {
  if (a.sequences.size() == b.sequences.size()) return;
  throw Error(against(a, b),
              fmt::format("{} sequences against {}: these are not the same texts",
                          a.sequences.size(), b.sequences.size()),
              "score the same token ids on both sides, in the same order");
}

Error other_token(const Scores& a, const Scores& b, size_t sequence, size_t position,
                  const std::string& x, const std::string& y, Hint hint) {
  return {against(a, b),
          fmt::format("sequence {}, position {}: token {} against {}: the two sides scored "
                      "different texts",
                      sequence, position, x, y),
          std::move(hint)};
}

// Ids of -1 are unknown: vLLM's first token without prompt_token_ids.
void check_tokens(const Scores& a, const Scores& b, size_t s) {
  const auto &x = a.sequences[s].tokens, &y = b.sequences[s].tokens;
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
    if (x[i] != y[i] && x[i] != -1 && y[i] != -1)
      throw other_token(a, b, s, i, std::to_string(x[i]), std::to_string(y[i]),
                        "score the same token ids on both sides (send input_ids, not text)");
  if (x.size() != y.size())
    throw Error(against(a, b),
                fmt::format("sequence {}: {} tokens against {}", s, x.size(), y.size()),
                "score the same token ids on both sides");
}

void check_texts(const Scores& a, const Scores& b, size_t s) {
  const auto &x = a.sequences[s].texts, &y = b.sequences[s].texts;
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
    if (x[i] != y[i])
      throw other_token(a, b, s, i, in_quotes(x[i]), in_quotes(y[i]),
                        "score the same token ids on both sides");
}

// How far B's positions lie after A's: 0, or +-1 where only one side holds the unscored first
// token.
int offset_between(const Scores& a, const Scores& b, size_t s) {
  const Sequence &x = a.sequences[s], &y = b.sequences[s];
  if (x.size() == y.size()) return 0;
  if (x.size() + 1 == y.size() && !y.scored[0]) return 1;
  if (y.size() + 1 == x.size() && !x.scored[0]) return -1;
  throw Error(against(a, b),
              fmt::format("sequence {}: {} positions against {}", s, x.size(), y.size()),
              "score the same tokens on both sides");
}

bool counts(const Sequence& sequence, size_t position) {
  return sequence.counted.empty() || sequence.counted[position];
}

void add_pair(const ScorePair& pair, const Sequence& x, const Sequence& y, size_t in_y,
              Alignment& out) {
  if (!x.scored[pair.position] || !y.scored[in_y])
    ++out.unscored;
  else if (!counts(x, pair.position) || !counts(y, in_y))
    ++out.masked;
  else if (!std::isfinite(pair.a) || !std::isfinite(pair.b))
    ++out.not_finite;
  else
    out.pairs.push_back(pair);
}

// The positions of sequence `s`, `offset` further in B.
void add_sequence(const Scores& a, const Scores& b, size_t s, int offset, Alignment& out) {
  const Sequence &x = a.sequences[s], &y = b.sequences[s];
  const auto prompt = x.prompt ? x.prompt : y.prompt;
  out.knows_prompt = out.knows_prompt || prompt.has_value();
  for (size_t i = offset < 0 ? 1 : 0; i < x.size(); ++i) {
    const auto j = static_cast<size_t>(static_cast<int64_t>(i) + offset);
    const int64_t token = !x.tokens.empty() ? x.tokens[i] : !y.tokens.empty() ? y.tokens[j] : -1;
    add_pair({s, i, token, x.logprobs[i], y.logprobs[j], prompt && i < *prompt}, x, y, j, out);
  }
}

// The mean |B - A| when B's value of position i + by stands for position i, and how many there are.
std::pair<double, int64_t> shifted(const Scores& a, const Scores& b, int by) {
  double sum = 0;
  int64_t n = 0;
  for (size_t s = 0; s < a.sequences.size(); ++s) {
    const Sequence &x = a.sequences[s], &y = b.sequences[s];
    for (size_t i = 0; i < x.size(); ++i) {
      const auto j = static_cast<int64_t>(i) + by;
      if (j < 0 || j >= static_cast<int64_t>(y.size())) continue;
      const auto at = static_cast<size_t>(j);
      if (!x.scored[i] || !y.scored[at]) continue;
      const double d = std::fabs(x.logprobs[i] - y.logprobs[at]);
      if (!std::isfinite(d)) continue;
      sum += d;
      ++n;
    }
  }
  return {n == 0 ? 0 : sum / static_cast<double>(n), n};
}

double mean_abs(const std::vector<ScorePair>& pairs, double slope) {
  return mean(pairs, [&](const ScorePair& p) { return std::fabs(p.b - slope * p.a); });
}

// The factor that brings A's values nearest to B's, by least squares through the origin: two
// temperatures stretch log-probabilities, noise does not.
double slope_of(const std::vector<ScorePair>& pairs) {
  double ab = 0, aa = 0;
  for (const ScorePair& p : pairs) {
    ab += p.a * p.b;
    aa += p.a * p.a;
  }
  return aa > 0 ? ab / aa : 1;
}

}  // namespace

Alignment align(const Scores& a, const Scores& b) {
  check_counts(a, b);
  Alignment out;
  size_t positions = 0;
  for (const Sequence& sequence : a.sequences) positions += sequence.size();
  out.pairs.reserve(positions);
  bool all_ids = true;
  for (size_t s = 0; s < a.sequences.size(); ++s) {
    const bool ids = !a.sequences[s].tokens.empty() && !b.sequences[s].tokens.empty();
    all_ids = all_ids && ids;
    ids ? check_tokens(a, b, s) : check_texts(a, b, s);
    add_sequence(a, b, s, ids ? 0 : offset_between(a, b, s), out);
  }
  if (out.pairs.empty())
    throw Error(against(a, b),
                fmt::format("not one position was scored by both sides ({} without a value, {} "
                            "masked, {} not finite): nothing to compare",
                            out.unscored, out.masked, out.not_finite),
                "ask the server for prompt log-probabilities");
  if (!all_ids) out.notes.push_back("no token ids on at least one side: positions are trusted");
  return out;
}

std::vector<std::string> suspicions(const Scores& a, const Scores& b, const Alignment& alignment) {
  std::vector<std::string> out;
  const double plain = mean_abs(alignment.pairs, 1);
  if (plain < kNoticeable) return out;
  for (const int by : {-1, 1}) {
    const auto [apart, n] = shifted(a, b, by);
    if (n >= 8 && apart < kSuspect * plain)
      out.push_back(fmt::format(
          "B fits A better when it is read one position {} (mean |d| {:.4g} instead of {:.4g}): is "
          "one side shifted by one?",
          by < 0 ? "earlier" : "later", apart, plain));
  }
  const double slope = slope_of(alignment.pairs);
  const double stretched = mean_abs(alignment.pairs, slope);
  if (alignment.pairs.size() >= 8 && std::fabs(slope - 1) > 0.05 && stretched < kSuspect * plain)
    out.push_back(fmt::format(
        "B's values are {:.3f} times A's (mean |d| {:.4g} after that, {:.4g} before): were the two "
        "sides scored at different temperatures, or in different units?",
        slope, stretched, plain));
  return out;
}

}  // namespace moelora
