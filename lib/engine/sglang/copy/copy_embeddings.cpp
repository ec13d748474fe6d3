#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/copy/copy_layer.h"
#include "lib/engine/sglang/copy/copy_rows.h"
#include "lib/engine/sglang/load/diagnosis.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

class EmbeddingCopier {
 public:
  EmbeddingCopier(const CopyContext& context, const Pool& pool)
      : c_(context), pool_(pool), matcher_(pool.request.targets) {}

  void copy() {
    LayerWeights& all = c_.adapter.embeddings;
    for (size_t i = 0; i < all.count(); ++i)
      if (const Staged* entry = all.at(i)) copy(*entry);
  }

 private:
  void copy(const Staged& entry) {
    const int target = matcher_.find(entry.name);
    if (target < 0) return refuse_unmatched(entry);
    const std::string& module = matcher_.targets()[static_cast<size_t>(target)];
    const EmbeddingBuffer* buffer = find(module);
    if (buffer == nullptr || !contains(entry.name, module)) return;
    if (contains(entry.name, "lora_embedding_A") || contains(entry.name, "lora_A"))
      copy_a(*buffer, entry);
    else if (contains(entry.name, "lora_embedding_B") || contains(entry.name, "lora_B"))
      copy_b(*buffer, entry);
    else
      c_.adapter.lose(entry.sources(), &cause::ignored_tensors,
                      "SGLang serves no saved module: it drops the tensor");
  }

  const EmbeddingBuffer* find(std::string_view module) const {
    for (const EmbeddingBuffer& buffer : pool_.embeddings)
      if (buffer.name == module) return &buffer;
    return nullptr;
  }

  void refuse_unmatched(const Staged& entry) {
    const Diagnosis why = cause_of_unmatched(c_.adapter, entry, pool_.request.targets, c_.features);
    c_.adapter.raise({why.cause, stage::kLoad, "ValueError",
                      fmt::format("Cannot find target module name for {} in {}",
                                  in_text(entry.name), py_set(pool_.request.targets)),
                      why.detail, true},
                     entry.sources());
  }

  void copy_a(const EmbeddingBuffer& buffer, const Staged& a) {
    const Shape view = {std::min(c_.adapter.r, buffer.a[0]), buffer.a[1]};
    emit(buffer, whole(a), view, true, 0);
  }

  // lm_head's rows beyond the tensor's stay zero; those of a rank's share of the vocabulary are cut
  // out of it only where there is more than one rank.
  void copy_b(const EmbeddingBuffer& buffer, const Staged& b) {
    Sliced sliced = whole(b);
    Shape view = {buffer.b[0], std::min(c_.adapter.r, buffer.b[1])};
    int64_t first = 0;
    if (buffer.name == "lm_head" && b.rank() >= 1) {
      const int64_t rows = b.shape[0];
      if (pool_.rank.tp > 1) {
        first = std::min(pool_.vocab_first, rows);
        sliced.runs[0] = {first, std::min(pool_.vocab_first + pool_.vocab_count, rows) - first};
        sliced.shape[0] = sliced.runs[0].count;
      }
      view[0] = std::min(view[0], sliced.shape[0]);
      if (rows < c_.model.config.vocab) too_few(b, rows);
    }
    emit(buffer, sliced, view, false, first);
  }

  void too_few(const Staged& b, int64_t rows) {
    Journal::Entry& entry = c_.adapter.journal.entry(&cause::shape_mismatch, Effect::partial);
    entry.detail =
        fmt::format("lora_B of lm_head has {} rows of {}: the others are served as zeros", rows,
                    c_.model.config.vocab);
    entry.add(b.sources());
  }

  void emit(const EmbeddingBuffer& buffer, const Sliced& sliced, const Shape& view, bool is_a,
            int64_t first) {
    if (view != sliced.shape) return refuse(sliced, view);
    Write write;
    write.buffer = buffer.name;
    write.is_a = is_a;
    write.columns = sliced.columns.count;
    const Part parts[] = {{0, view[0], first}};
    const int64_t all_rows[] = {sliced.tensor->shape[0]};
    copy_rows(c_.sink, sliced, write, parts, all_rows);
  }

  void refuse(const Sliced& sliced, const Shape& view) {
    const Diagnosis why = cause_of_shape(c_.adapter, *sliced.tensor, pool_.request.max_rank,
                                         fmt::format("the server makes {} of it, and expects {}",
                                                     to_string(sliced.shape), to_string(view)));
    c_.adapter.raise({why.cause, stage::kLoad, "AssertionError",
                      fmt::format("LoRA buffer shape {} does not match weight shape {}.",
                                  py_size(view), py_size(sliced.shape)),
                      why.detail, true},
                     sliced.tensor->sources());
  }

  const CopyContext& c_;
  const Pool& pool_;
  TargetMatcher matcher_;
};

}  // namespace

void copy_embeddings(const CopyContext& context, const Pool& pool) {
  EmbeddingCopier(context, pool).copy();
}

}  // namespace moelora::sglang
