#include "lib/io/evaluate.h"

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "lib/base/arena.h"
#include "lib/base/parallel.h"
#include "lib/io/job_runner.h"
#include "lib/io/ordered_digests.h"
#include "lib/io/packed_bytes.h"
#include "lib/io/tensor_jobs.h"

namespace moelora {
namespace {

// Half of the memory is a small buffer for every thread; the other half is shared by the few jobs
// that need more. Beyond kBestTarget a job does not get faster: it leaves the caches.
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
  return {threads, {target, options.memory - target * static_cast<uint64_t>(threads)}};
}

// The shared half. Jobs get their share in the order of the plan: a job waits for the digests of
// those before it, so those must never wait for memory that it holds.
class SharedMemory {
 public:
  explicit SharedMemory(uint64_t bytes) : free_(bytes) {}

  void take(size_t turn, uint64_t bytes) {
    std::unique_lock lock(mutex_);
    moved_.wait(lock, [&] { return stopped_ || (turn == turn_ && bytes <= free_); });
    if (stopped_) throw OrderedDigests::Stopped{};
    free_ -= bytes;
    ++turn_;
    moved_.notify_all();
  }

  void give_back(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    free_ += bytes;
    moved_.notify_all();
  }

  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    moved_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable moved_;
  uint64_t free_;
  size_t turn_ = 0;
  bool stopped_ = false;
};

class Evaluation {
 public:
  Evaluation(std::span<const Tensor> tensors, std::span<const Place> places,
             const EvaluateOptions& options, const TakeBytes& take)
      : tensors_(tensors),
        places_(places),
        take_(take),
        wants_digests_(options.digests),
        budget_(split_memory(options)),
        shared_(budget_.limits.most),
        digests_(tensors.size()),
        jobs_(plan_jobs(tensors, budget_.limits)),
        arenas_(static_cast<size_t>(budget_.threads)) {
    for (const Job& job : jobs_) {
      turns_.push_back(big_jobs_);
      if (is_big(job)) ++big_jobs_;
    }
  }

  std::vector<std::string> run() {
    parallel_for(static_cast<int64_t>(jobs_.size()), budget_.threads, [&](int64_t j, int worker) {
      try {
        run_one(static_cast<size_t>(j), arenas_[static_cast<size_t>(worker)]);
      } catch (const OrderedDigests::Stopped&) {  // because of another job, which threw
      } catch (...) {
        digests_.stop();
        shared_.stop();
        throw;
      }
    });
    return digests_.take();
  }

 private:
  bool is_big(const Job& job) const { return job.cost > budget_.limits.target; }

  void run_one(size_t j, Arena& arena) {
    const Job& job = jobs_[j];
    if (!is_big(job)) return finish(job, run_job(tensors_, job, arena));
    // Rows too long for `memory` are evaluated all the same, alone.
    const uint64_t bytes = std::min(job.cost, budget_.limits.most);
    shared_.take(turns_[j], bytes);
    Arena own;
    finish(job, run_job(tensors_, job, own));
    own.release();
    shared_.give_back(bytes);
  }

  uint64_t bytes_of(const Block& block) const {
    return static_cast<uint64_t>(block.count * dtype_bytes(tensors_[block.item].dtype()));
  }

  void finish(const Job& job, std::span<const std::byte> result) {
    if (wants_digests_) add_digests(job, result);
    if (take_) hand_out(job, result);
  }

  void add_digests(const Job& job, std::span<const std::byte> result) {
    for (const Block& block : job.blocks) {
      const Tensor& tensor = tensors_[block.item];
      const auto offset = static_cast<uint64_t>(block.first * dtype_bytes(tensor.dtype()));
      digests_.add(block.item, offset, tensor.bytes(), result.first(bytes_of(block)));
      result = result.subspan(bytes_of(block));
    }
  }

  // Blocks that are neighbours in their file, and are so in `result` too, go out as one run. One
  // job at a time: writers of one file wait for each other in the kernel anyway, at the price of
  // cores.
  void hand_out(const Job& job, std::span<const std::byte> result) {
    const std::lock_guard lock(taking_);
    Place run{};
    uint64_t bytes = 0;
    for (const Block& block : job.blocks) {
      Place place = places_[block.item];
      place.offset +=
          static_cast<uint64_t>(block.first * dtype_bytes(tensors_[block.item].dtype()));
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

  std::span<const Tensor> tensors_;
  std::span<const Place> places_;
  const TakeBytes& take_;
  bool wants_digests_;
  Budget budget_;
  SharedMemory shared_;
  OrderedDigests digests_;
  std::vector<Job> jobs_;
  std::vector<size_t> turns_;  // of big jobs: how many big ones come before
  size_t big_jobs_ = 0;
  std::vector<Arena> arenas_;  // one a thread
  std::mutex taking_;
};

}  // namespace

std::vector<std::string> evaluate_tensors(std::vector<Tensor> tensors,
                                          std::span<const Place> places,
                                          const EvaluateOptions& options, const TakeBytes& take) {
  for (Tensor& tensor : tensors) tensor = in_whole_bytes(tensor);
  return Evaluation(tensors, places, options, take).run();
}

}  // namespace moelora
