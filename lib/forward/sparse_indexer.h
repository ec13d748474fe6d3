#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "lib/forward/attend.h"
#include "lib/forward/family_section.h"
#include "lib/forward/layer_pass.h"
#include "lib/forward/rope.h"

namespace moelora {

// Which keys a token may look at where attention is sparse (DeepSeek-V3.2, GLM-5): the `top` of
// those before it that score best by a small attention of their own,
//   score(t, j) = sum over heads h of w(t, h) * max(0, q(t, h) k(j)),
// with q out of the queries' latent, one k for all heads, and w out of the token. A layer whose
// modules have no indexer looks where the last one before it that has one did. Of keys that score
// the same those are taken that torch takes on a CPU.
class SparseIndexer {
 public:
  // `rope`: of the first numbers of each head; its pairs are the section's own.
  SparseIndexer(const FamilySection& section, std::optional<Rope> rope);

  // x [tokens, hidden], `latent` [tokens, q_rank] after its norm. Nothing where each sequence is so
  // short that all keys are seen; then no weight of the indexer is read.
  template <class T>
  std::optional<Visible> choose(const LayerPass<T>& pass, const Matrix<T>& x,
                                const Matrix<T>& latent) const;

 private:
  std::string path(const std::string& name) const { return path_ + "." + name; }
  template <class T>
  Matrix<T> choose_keys(const LayerPass<T>& pass, const Matrix<T>& x,
                        const Matrix<T>& latent) const;
  template <class T>
  Matrix<T> turned(const LayerPass<T>& pass, Matrix<T> heads) const;

  std::string path_;
  int64_t heads_, head_dim_, top_;
  NormSpec key_norm_;
  std::optional<Rope> rope_;
};

}  // namespace moelora
