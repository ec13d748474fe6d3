#include "lib/io/evaluate.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <random>
#include <thread>

#include "lib/base/digest.h"
#include "lib/base/error.h"
#include "lib/io/tensor_jobs.h"

using namespace moelora;

namespace {

// Numbered 16-bit elements that count how often each is read, in granules.
class CountingSource final : public Source {
 public:
  explicit CountingSource(int64_t elements, int64_t granule = 1)
      : Source(DType::BF16, elements), counts(static_cast<size_t>(elements)), granule_(granule) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    if (first % granule_ != 0 || ((first + count) % granule_ != 0 && first + count != elements()))
      throw Error(where(), "was read across its granule");
    for (int64_t i = first; i < first + count; ++i) {
      const auto value = static_cast<uint16_t>(i * 31 + 7);
      std::memcpy(out + (i - first) * 2, &value, 2);
      ++counts[static_cast<size_t>(i)];
    }
  }
  int64_t granule() const override { return granule_; }
  std::string where() const override { return "counting"; }

  int most_reads() const {
    int most = 0;
    for (const auto& n : counts) most = std::max(most, n.load());
    return most;
  }

  mutable std::vector<std::atomic<int>> counts;

 private:
  int64_t granule_;
};

std::vector<const Tensor*> refs(const std::vector<Tensor>& tensors) {
  std::vector<const Tensor*> out;
  for (const Tensor& tensor : tensors) out.push_back(&tensor);
  return out;
}

using Counting = std::shared_ptr<CountingSource>;

struct Case {
  std::vector<Counting> sources;
  std::vector<Tensor> tensors;

  Tensor source(const Shape& shape, int64_t granule = 1) {
    sources.push_back(
        std::make_shared<CountingSource>(Tensor::zeros(DType::BF16, shape).elements(), granule));
    return Tensor(sources.back(), shape);
  }
  void forget() const {
    for (const Counting& s : sources)
      for (auto& n : s->counts) n = 0;
  }
  int most_reads() const {
    int most = 0;
    for (const Counting& s : sources) most = std::max(most, s->most_reads());
    return most;
  }
};

// Every byte taken exactly once, each tensor as Tensor::read gives it, digests included.
void check_evaluation(const Case& c, const EvaluateOptions& options) {
  CAPTURE(options.threads);
  CAPTURE(options.memory);
  std::vector<Place> places;
  uint64_t total = 0;
  for (const Tensor& t : c.tensors) {
    places.push_back({0, total});
    total += t.bytes();
  }
  std::vector<std::byte> out(total);
  std::vector<uint8_t> taken(total);
  std::mutex mutex;
  const auto digests = evaluate_tensors(
      refs(c.tensors), places, options, [&](size_t, uint64_t at, std::span<const std::byte> bytes) {
        const std::lock_guard lock(mutex);
        std::copy(bytes.begin(), bytes.end(), out.begin() + static_cast<std::ptrdiff_t>(at));
        for (size_t i = 0; i < bytes.size(); ++i) ++taken[at + i];
      });
  CHECK(std::all_of(taken.begin(), taken.end(), [](uint8_t n) { return n == 1; }));
  for (size_t i = 0; i < c.tensors.size(); ++i) {
    const auto expected = c.tensors[i].read();
    CAPTURE(i);
    REQUIRE(std::equal(expected.begin(), expected.end(),
                       out.begin() + static_cast<std::ptrdiff_t>(places[i].offset)));
    REQUIRE(digests[i] == (options.digests ? digest_hex(expected) : ""));
  }
}

Case split_stacked_b() {  // [out, r*E] to E times [out, r], experts out of order as names sort them
  Case c;
  const int64_t out = 96, r = 4, experts = 24;
  const Tensor all = c.source({out, r * experts}).reshape({out, r, experts}).permute({2, 0, 1});
  for (int64_t e = 0; e < experts; ++e) c.tensors.push_back(all.select(0, e * 7 % experts));
  return c;
}

Case join_stacked_b() {
  Case c;
  std::vector<Tensor> parts;
  for (int e = 0; e < 24; ++e) parts.push_back(c.source({96, 4}));
  c.tensors.push_back(Tensor::stack(parts).permute({1, 2, 0}).reshape({96, 96}));
  return c;
}

Case stacked_experts() {  // [E, 2I, H] to gate and up of each expert
  Case c;
  const Tensor all = c.source({6, 2 * 40, 128});
  for (int64_t e = 0; e < 6; ++e)
    for (int64_t half = 0; half < 2; ++half)
      c.tensors.push_back(all.select(0, e).slice(0, half * 40, 40));
  return c;
}

Case interleaved_columns() {  // [H, 2I], gate and up alternating, to [I, H] each
  Case c;
  const Tensor all = c.source({64, 2 * 50}).reshape({64, 50, 2});
  for (int64_t half = 0; half < 2; ++half) c.tensors.push_back(all.select(2, half).transpose(0, 1));
  return c;
}

Case shared_outer() {  // one A for all experts
  Case c;
  const Tensor one = c.source({1, 8, 256});
  for (int64_t e = 0; e < 32; ++e) c.tensors.push_back(one.broadcast(0, 32).select(0, e));
  return c;
}

Case broadcast() {  // the same, as one stacked tensor
  Case c;
  c.tensors.push_back(c.source({1, 8, 1100}).broadcast(0, 6));
  return c;
}

Case shared_rows() {  // long runs, each for two tensors
  Case c;
  const Tensor one = c.source({4, 40, 500});
  for (int64_t e = 0; e < 4; ++e)
    for (int half = 0; half < 2; ++half) c.tensors.push_back(one.select(0, e));
  return c;
}

Case granules() {  // long runs that are cut where a granule may not be
  Case c;
  c.tensors.push_back(c.source({3001, 70}, 32));
  return c;
}

Case plain() {
  Case c;
  c.tensors.push_back(c.source({3000, 70}));
  c.tensors.push_back(c.source({0, 4}));
  c.tensors.push_back(c.source({}));
  for (int i = 0; i < 50; ++i) c.tensors.push_back(c.source({i + 1, 3}));
  c.tensors.push_back(Tensor::zeros(DType::F32, {100, 100}));
  return c;
}

Case middle_axis() {  // [r, E, H] to E times [r, H]: rows far apart
  Case c;
  const Tensor all = c.source({8, 5, 9000});
  for (int64_t e = 0; e < 5; ++e) c.tensors.push_back(all.select(1, e));
  return c;
}

Case holes() {  // a padded rank: what no piece covers is zero
  Case c;
  for (int i = 0; i < 4; ++i)
    c.tensors.push_back(
        Tensor::concat(1, std::vector{c.source({300, 5}), Tensor::zeros(DType::BF16, {300, 3})}));
  return c;
}

Case transposed(int64_t granule) {
  Case c;
  c.tensors.push_back(c.source({500, 320}, granule).transpose(0, 1));
  return c;
}

}  // namespace

TEST_CASE("what is evaluated together is what each tensor alone reads, in any memory") {
  for (const Case& c : {split_stacked_b(), join_stacked_b(), stacked_experts(),
                        interleaved_columns(), shared_outer(), broadcast(), plain(), middle_axis(),
                        holes(), transposed(1), transposed(32), shared_rows(), granules()})
    for (const int threads : {1, 4})
      for (const uint64_t memory : {6u << 10, 60u << 10, 600u << 10, 64u << 20})
        check_evaluation(c, {threads, memory, true});
}

TEST_CASE("digests can be left out") { check_evaluation(plain(), {2, 1 << 20, false}); }

TEST_CASE("each source byte is read once") {
  for (const uint64_t memory : {40u << 10, 400u << 10, 64u << 20}) {
    CAPTURE(memory);
    const auto reads = [&](const Case& c) {
      c.forget();
      evaluate_tensors(refs(c.tensors), std::vector<Place>(c.tensors.size()), {3, memory, true},
                       nullptr);
      return c.most_reads();
    };
    CHECK(reads(split_stacked_b()) == 1);
    CHECK(reads(join_stacked_b()) == 1);
    CHECK(reads(stacked_experts()) == 1);
    if (memory > 100 << 10) CHECK(reads(interleaved_columns()) == 1);  // else gaps are read twice
    CHECK(reads(shared_outer()) == 1);
    if (memory > 400 << 10)
      CHECK(reads(broadcast()) == 1);  // else once for each part of the result
    CHECK(reads(shared_rows()) == 1);
    CHECK(reads(plain()) == 1);
    CHECK(reads(middle_axis()) == 1);
    CHECK(reads(holes()) == 1);
  }
}

TEST_CASE("a transposition above the memory reads no source byte twice") {
  const Case c = transposed(1);
  c.forget();
  evaluate_tensors(refs(c.tensors), std::vector<Place>(1), {1, 60 << 10, false}, nullptr);
  CHECK(c.most_reads() == 1);
}

TEST_CASE("no job is dearer than the memory it was planned for") {
  for (const Case& c :
       {split_stacked_b(), join_stacked_b(), stacked_experts(), interleaved_columns(),
        shared_outer(), broadcast(), plain(), middle_axis(), holes()})
    for (const uint64_t most : {8u << 10, 64u << 10, 1u << 20})
      for (const Job& job : plan_jobs(refs(c.tensors), {most / 4, most})) CHECK(job.cost <= most);
}

TEST_CASE("the experts of one stacked tensor are not a group, its columns are") {
  const Case stacked = stacked_experts(), columns = split_stacked_b();
  CHECK(plan_jobs(refs(stacked.tensors), {40 << 10, 1 << 20}).size() >= 6);
  const std::vector<Job> jobs = plan_jobs(refs(columns.tensors), {1 << 20, 1 << 20});
  REQUIRE(jobs.size() == 1);
  CHECK(jobs[0].blocks.size() == 24);
}

TEST_CASE("random recipes are evaluated as they read") {
  std::mt19937 rng(11);
  const auto pick = [&](int64_t n) {
    return static_cast<int64_t>(rng() % static_cast<uint64_t>(n));
  };
  for (int round = 0; round < 300; ++round) {
    CAPTURE(round);
    Case c;
    std::vector<Tensor> pool;
    for (int64_t i = 1 + pick(3); i-- > 0;)
      pool.push_back(c.source({2 + pick(6), 2 + pick(8), 2 + pick(40)}, pick(4) == 0 ? 4 : 1));
    for (int64_t i = 1 + pick(12); i-- > 0;) {
      Tensor t = pool[static_cast<size_t>(pick(static_cast<int64_t>(pool.size())))];
      for (int64_t step = pick(4); step-- > 0;) {
        const auto d = static_cast<int>(pick(t.rank()));
        switch (pick(4)) {
          case 0:
            t = t.transpose(d, static_cast<int>(pick(t.rank())));
            break;
          case 1: {
            const int64_t first = pick(t.dim(d));
            t = t.slice(d, first, 1 + pick(t.dim(d) - first));
            break;
          }
          case 2:
            t = t.reshape({t.elements()}).reshape({1, t.elements(), 1});
            break;
          default:
            t = Tensor::concat(d, std::vector{t, t});
        }
      }
      c.tensors.push_back(t);
    }
    check_evaluation(c,
                     {1 + static_cast<int>(pick(4)), uint64_t{1} << (10 + pick(12)), pick(2) == 0});
  }
}

namespace {

// Fails beyond an element, without a word before it.
class FailingSource final : public Source {
 public:
  explicit FailingSource(int64_t elements) : Source(DType::BF16, elements) {}
  void read(int64_t first, int64_t, std::byte*) const override {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (first >= elements() / 2) throw Error("failing", "no more");
  }
  std::string where() const override { return "failing"; }
};

}  // namespace

TEST_CASE("a source that fails ends the evaluation with its error, whoever waits") {
  for (int round = 0; round < 20; ++round) {
    const auto source = std::make_shared<FailingSource>(1 << 20);
    // Cut into blocks whose digests wait for each other.
    const std::vector<Tensor> cut = {Tensor(source, {1 << 20})};
    CHECK_THROWS_AS(evaluate_tensors(refs(cut), std::vector<Place>(1), {4, 1 << 20, true}, nullptr),
                    Error);
    // Kept whole, and waiting for the memory that one of them has.
    std::vector<Tensor> whole;
    for (int64_t i = 0; i < 8; ++i)
      whole.push_back(cut[0].slice(0, i << 17, 1 << 17).reshape({256, 512}).transpose(0, 1));
    CHECK_THROWS_AS(
        evaluate_tensors(refs(whole), std::vector<Place>(8), {4, 1200 << 10, false}, nullptr),
        Error);
  }
}
