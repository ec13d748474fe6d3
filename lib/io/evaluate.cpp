#include "lib/io/evaluate.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <numeric>

#include "lib/base/arena.h"
#include "lib/base/digest.h"
#include "lib/base/parallel.h"
#include "lib/io/run_job.h"

namespace moelora {
namespace {

class PackedBytes final : public ComputedSource {
 public:
  explicit PackedBytes(const SourcePtr& inner)
      : ComputedSource(inner, DType::U8, inner->elements() * dtype_bits(inner->dtype()) / 8),
        bits_(dtype_bits(inner_->dtype())) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    const int64_t from = first * 8 / bits_;
    const int64_t to = std::min(inner_->elements(), (first + count) * 8 / bits_);
    inner_->read(from, to - from, out);
  }

  // Bytes that hold a whole number of elements: 1 for F4, 3 for F6.
  int64_t granule() const override { return std::lcm(8, bits_) / 8; }

 private:
  int64_t bits_;
};

// A tensor of a dtype below one byte (F4, F6_*) as the bytes it is stored in, U8 [bytes]. Such a
// tensor is only ever passed through whole (lib/base/tensor.h).
Tensor in_whole_bytes(const Tensor& tensor) {
  const Shape flat = {static_cast<int64_t>(tensor.bytes())};
  if (tensor.pieces().empty()) return Tensor::zeros(DType::U8, flat);
  return Tensor(std::make_shared<PackedBytes>(tensor.pieces().front().source), flat);
}

// A job of kBestTarget does not get faster by being larger: it leaves the caches. Two jobs of the
// largest kind can be under way at once.
constexpr uint64_t kBestTarget = 16 << 20;
constexpr uint64_t kLeastTarget = 64 << 10;

struct Budget {
  int threads;
  JobLimits limits;
};

Budget split_memory(const EvaluateOptions& options) {
  const uint64_t half = options.memory / 2;
  const auto most_threads = static_cast<int>(std::max<uint64_t>(1, half / kLeastTarget));
  const int threads =
      std::min(options.threads > 0 ? options.threads : available_threads(), most_threads);
  const uint64_t target = std::min(kBestTarget, half / static_cast<uint64_t>(threads));
  return {threads, {target, half}};
}

class Evaluation {
 public:
  Evaluation(TensorList tensors, std::span<const Place> places, const EvaluateOptions& options,
             const TakeBytes& take)
      : tensors_(tensors),
        places_(places),
        take_(take),
        wants_digests_(options.digests),
        budget_(split_memory(options)),
        arenas_(options.memory),
        digests_(tensors.size()),
        jobs_(plan_jobs(tensors, budget_.limits, budget_.threads)) {}

  std::vector<std::string> run() {
    parallel_for(static_cast<int64_t>(jobs_.size()), budget_.threads, [&](int64_t j, int) {
      try {
        run_one(static_cast<size_t>(j));
      } catch (const OrderedDigests::Stopped&) {  // because of another job, which threw
      } catch (const ArenaPool::Stopped&) {
      } catch (...) {
        digests_.stop();
        arenas_.stop();
        throw;
      }
    });
    return digests_.take();
  }

 private:
  void run_one(size_t j) {
    const Job& job = jobs_[j];
    const ArenaPool::Lease arena = arenas_.take(j, job.cost);
    const std::span<const std::byte> result = run_job(tensors_, job, *arena);
    if (wants_digests_) add_digests(job, result);
    if (take_) hand_out(job, result);
  }

  uint64_t bytes_of(const Block& block) const {
    return static_cast<uint64_t>(block.count * dtype_bytes(tensors_[block.item]->dtype()));
  }

  void add_digests(const Job& job, std::span<const std::byte> result) {
    for (const Block& block : job.blocks) {
      const Tensor& tensor = *tensors_[block.item];
      const auto offset = static_cast<uint64_t>(block.first * dtype_bytes(tensor.dtype()));
      digests_.add(block.item, offset, tensor.bytes(), result.first(bytes_of(block)));
      result = result.subspan(bytes_of(block));
    }
  }

  // Blocks that are neighbours in their file, and are so in `result` too, go out as one run.
  void hand_out(const Job& job, std::span<const std::byte> result) {
    Place run{};
    uint64_t bytes = 0;
    for (const Block& block : job.blocks) {
      Place place = places_[block.item];
      place.offset +=
          static_cast<uint64_t>(block.first * dtype_bytes(tensors_[block.item]->dtype()));
      if (place.file != run.file || place.offset != run.offset + bytes) {
        flush(run, bytes, result);
        run = place;
        bytes = 0;
      }
      bytes += bytes_of(block);
    }
    flush(run, bytes, result);
  }

  void flush(const Place& run, uint64_t bytes, std::span<const std::byte>& result) const {
    if (bytes > 0) take_(run.file, run.offset, result.first(bytes));
    result = result.subspan(bytes);
  }

  TensorList tensors_;
  std::span<const Place> places_;
  const TakeBytes& take_;
  bool wants_digests_;
  Budget budget_;
  ArenaPool arenas_;
  OrderedDigests digests_;
  std::vector<Job> jobs_;
};

}  // namespace

std::vector<std::string> evaluate_tensors(TensorList tensors, std::span<const Place> places,
                                          const EvaluateOptions& options, const TakeBytes& take) {
  std::deque<Tensor> packed;  // stand-ins for those of sub-byte dtypes
  std::vector<const Tensor*> whole(tensors.begin(), tensors.end());
  for (const Tensor*& tensor : whole)
    if (dtype_bits(tensor->dtype()) % 8 != 0)
      tensor = &packed.emplace_back(in_whole_bytes(*tensor));
  return Evaluation(whole, places, options, take).run();
}

std::map<std::string, std::string> digest_tensors(const TensorMap& tensors, int threads) {
  std::vector<const Tensor*> list;
  for (const auto& [name, tensor] : tensors) list.push_back(&tensor);
  EvaluateOptions options;
  options.threads = threads;
  std::vector<std::string> digests = evaluate_tensors(list, {}, options, nullptr);
  std::map<std::string, std::string> out;
  for (size_t i = 0; const auto& [name, tensor] : tensors)
    out.emplace_hint(out.end(), name, std::move(digests[i++]));
  return out;
}

}  // namespace moelora
