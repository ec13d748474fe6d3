#include "lib/forward/head.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/base/parallel.h"

namespace moelora {
namespace {

// What is kept of the logits of one token while they go by.
struct Seen {
  double most = -std::numeric_limits<double>::infinity();
  double sum = 0;     // of exp(logit - most)
  double target = 0;  // the next token's logit
  std::vector<TokenScores::Top> top;

  void add(double logit) {
    if (logit > most) {
      sum = sum * std::exp(most - logit) + 1;
      most = logit;
    } else {
      sum += std::exp(logit - most);
    }
  }

  void keep(int64_t token, double logit, size_t count) {
    if (count == 0 || (top.size() == count && top.back().logprob >= logit)) return;
    const auto at = std::find_if(top.begin(), top.end(),
                                 [&](const TokenScores::Top& t) { return t.logprob < logit; });
    top.insert(at, {token, logit});
    if (top.size() > count) top.pop_back();
  }

  // One after another in the order of the vocabulary, so that the result is one whatever computed
  // the parts.
  void merge(const Seen& next, size_t count) {
    if (next.most > most) {
      sum = sum * std::exp(most - next.most) + next.sum;
      most = next.most;
    } else if (next.sum > 0) {
      sum += next.sum * std::exp(next.most - most);
    }
    target += next.target;
    for (const TokenScores::Top& t : next.top) keep(t.token, t.logprob, count);
  }

  double log_sum() const { return most + std::log(sum); }
};

template <class T>
class Head {
 public:
  Head(const ModelPlan& plan, const Batch& batch, const ScoreOptions& options)
      : plan_(plan), batch_(batch), options_(options) {
    for (int64_t s = 0; s < batch.sequences(); ++s)
      for (int64_t i = 0; i + 1 < batch.length(s); ++i) rows_.push_back(batch.first(s) + i);
  }

  std::vector<TokenScores> run(const ModelWeights& weights, const Matrix<T>& h) const {
    const Matrix<T> x = inputs(weights, h);
    const LinearWeights head = weights.head();
    const LinearBlocks<T> blocks(head, x);
    // As many blocks at a time as their results are few beside the logits.
    const int64_t at_once = std::max(1, 2 * available_threads());
    std::vector<Seen> all(rows_.size());
    std::vector<std::vector<Seen>> parts(static_cast<size_t>(at_once));
    for (int64_t first = 0; first < blocks.count(); first += at_once) {
      options_.job.check();
      const int64_t count = std::min(at_once, blocks.count() - first);
      parallel_for(count, options_.threads, [&](int64_t i, int) {
        Matrix<T> logits = blocks.compute(first + i);
        round(logits);
        parts[static_cast<size_t>(i)] = look(logits, blocks.first(first + i));
      });
      for (int64_t i = 0; i < count; ++i)
        for (size_t row = 0; row < all.size(); ++row)
          all[row].merge(parts[static_cast<size_t>(i)][row], top());
    }
    return scores(all);
  }

 private:
  size_t top() const { return static_cast<size_t>(options_.top); }

  void round(Matrix<T>& values) const {
    if (options_.precision == Precision::bf16) round_to_bf16(values);
  }

  // The rows whose next token is known, after the last norm.
  Matrix<T> inputs(const ModelWeights& weights, const Matrix<T>& h) const {
    Matrix<T> x(static_cast<int64_t>(rows_.size()), h.cols());
    for (size_t i = 0; i < rows_.size(); ++i) x.row(static_cast<int64_t>(i)) = h.row(rows_[i]);
    const std::string& name = plan_.final_norm();
    const auto part = [&](const char* suffix) -> RowVector<T> {
      return read_matrix<T>(weights.vector(name + suffix, h.cols())).row(0);
    };
    RowVector<T> bias;
    if (plan_.norm().kind == NormKind::layer) bias = part(".bias");
    x = normalized(plan_.norm(), x, part(".weight"), bias);
    round(x);
    return x;
  }

  std::vector<Seen> look(const Matrix<T>& logits, int64_t first) const {
    std::vector<Seen> out(rows_.size());
    for (size_t row = 0; row < out.size(); ++row) {
      const int64_t next = batch_.tokens[static_cast<size_t>(rows_[row] + 1)];
      for (int64_t i = 0; i < logits.cols(); ++i) {
        const double logit = final_logit(logits(static_cast<int64_t>(row), i));
        out[row].add(logit);
        out[row].keep(first + i, logit, top());
        if (first + i == next) out[row].target = logit;
      }
    }
    return out;
  }

  double final_logit(T value) const {
    double logit = static_cast<double>(value) * plan_.logits_scale();
    const double cap = plan_.logits_cap();
    if (cap != 0) logit = cap * std::tanh(logit / cap);
    return logit / options_.temperature;
  }

  std::vector<TokenScores> scores(const std::vector<Seen>& all) const {
    std::vector<TokenScores> out(static_cast<size_t>(batch_.sequences()));
    size_t row = 0;
    for (int64_t s = 0; s < batch_.sequences(); ++s)
      for (int64_t i = 0; i + 1 < batch_.length(s); ++i, ++row) {
        TokenScores& scores = out[static_cast<size_t>(s)];
        scores.logprobs.push_back(all[row].target - all[row].log_sum());
        if (top() == 0) continue;
        scores.top.push_back(all[row].top);
        for (TokenScores::Top& t : scores.top.back()) t.logprob -= all[row].log_sum();
      }
    return out;
  }

  const ModelPlan& plan_;
  const Batch& batch_;
  const ScoreOptions& options_;
  std::vector<int64_t> rows_;
};

}  // namespace

template <class T>
std::vector<TokenScores> score_hidden(const ModelPlan& plan, const ModelWeights& weights,
                                      const Batch& batch, const Matrix<T>& h,
                                      const ScoreOptions& options) {
  return Head<T>(plan, batch, options).run(weights, h);
}

template std::vector<TokenScores> score_hidden(const ModelPlan&, const ModelWeights&, const Batch&,
                                               const Matrix<float>&, const ScoreOptions&);
template std::vector<TokenScores> score_hidden(const ModelPlan&, const ModelWeights&, const Batch&,
                                               const Matrix<double>&, const ScoreOptions&);

}  // namespace moelora
