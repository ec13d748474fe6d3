#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>

#include "tools/python/call.h"
#include "tools/python/module.h"

namespace moelora::python {
namespace {

template <class T>
using Row = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

const Sequence& sequence_of(const FileScores& found, size_t s) {
  if (s >= found.scores.sequences.size()) throw nb::index_error("no such sequence");
  return found.scores.sequences[s];
}

template <class T, class F>
void fill(Row<T> out, size_t count, F&& value) {
  if (out.size() != count) throw nb::value_error("not as long as the sequence");
  for (size_t i = 0; i < count; ++i) out.data()[i] = value(i);
}

size_t top_of(const Sequence& sequence) {
  size_t out = 0;
  for (const auto& list : sequence.top) out = std::max(out, list.size());
  return out;
}

// Of position 1 and those after it, k each.
void read_top(const FileScores& found, size_t s, Row<int64_t> ids, Row<double> values) {
  const Sequence& sequence = sequence_of(found, s);
  const size_t k = top_of(sequence), count = k * (sequence.size() - 1);
  const auto at = [&](size_t i) { return sequence.top[1 + i / k][i % k]; };
  fill<int64_t>(ids, count, [&](size_t i) { return at(i).token; });
  fill<double>(values, count, [&](size_t i) { return at(i).logprob; });
}

// [ids of a sequence]: what a file of ids alone says.
TokenFile tokens_of(const nb::list& sequences) {
  TokenFile out{"tokens", "ids", {}};
  for (const nb::handle each : sequences) {
    const auto ids = nb::cast<Row<const int64_t>>(each);
    out.sequences.push_back({std::vector<int64_t>(ids.data(), ids.data() + ids.size())});
  }
  return out;
}

FileScores score_path(const std::string& tokens, const nb::dict& options, nb::object progress) {
  const Words words(options);
  ScoreFilesOptions how = in_python(words, [&] { return scoring_options(words); });
  return call(words, std::move(progress), [&](const JobControl& job) {
    how.job = job;
    return score_files(tokens, how);
  });
}

FileScores score_ids(const nb::list& tokens, const nb::dict& options, nb::object progress) {
  const Words words(options);
  ScoreFilesOptions how = in_python(words, [&] { return scoring_options(words); });
  const TokenFile ids = tokens_of(tokens);
  return call(words, std::move(progress), [&](const JobControl& job) {
    how.job = job;
    return score_files(ids, how);
  });
}

Predictions predict_path(const std::string& tokens, const nb::dict& options, nb::object progress) {
  const Words words(options);
  PredictOptions how = in_python(words, [&] { return prediction_options(words); });
  return call(words, std::move(progress), [&](const JobControl& job) {
    how.job = job;
    return predict(tokens, how);
  });
}

Predictions predict_ids(const nb::list& tokens, const nb::dict& options, nb::object progress) {
  const Words words(options);
  PredictOptions how = in_python(words, [&] { return prediction_options(words); });
  const TokenFile ids = tokens_of(tokens);
  return call(words, std::move(progress), [&](const JobControl& job) {
    how.job = job;
    return predict(ids, how);
  });
}

void save(const FileScores& found, const std::string& path) {
  call(Words(nb::dict()), nb::none(), [&](const JobControl&) {
    write_scores(found, path);
    return true;
  });
}

}  // namespace

void bind_score(nb::module_& module) {
  using Found = FileScores;
  nb::class_<Found>(module, "FileScores")
      .def_prop_ro("sequences", [](const Found& f) { return f.scores.sequences.size(); })
      .def_prop_ro("precision",
                   [](const Found& f) { return std::string(precision_name(f.precision)); })
      .def_ro("temperature", &Found::temperature)
      .def_ro("base", &Found::base)
      .def_ro("notes", &Found::notes)
      .def_prop_ro("mean", &Found::mean)
      .def("size", [](const Found& f, size_t s) { return sequence_of(f, s).size(); })
      .def("top", [](const Found& f, size_t s) { return top_of(sequence_of(f, s)); })
      .def("prompt", [](const Found& f, size_t s) { return sequence_of(f, s).prompt; })
      .def("has_mask", [](const Found& f, size_t s) { return !sequence_of(f, s).counted.empty(); })
      .def("read_tokens",
           [](const Found& f, size_t s, Row<int64_t> out) {
             const Sequence& from = sequence_of(f, s);
             fill<int64_t>(out, from.size(), [&](size_t i) { return from.tokens[i]; });
           })
      .def("read_logprobs",
           [](const Found& f, size_t s, Row<double> out) {
             const Sequence& from = sequence_of(f, s);
             fill<double>(out, from.size() - 1, [&](size_t i) { return from.logprobs[i + 1]; });
           })
      .def("read_mask",
           [](const Found& f, size_t s, Row<bool> out) {
             const Sequence& from = sequence_of(f, s);
             fill<bool>(out, from.counted.size(), [&](size_t i) { return from.counted[i]; });
           })
      .def("read_top", read_top)
      .def("text", [](const Found& f) { return scoring_text(f); })
      .def("save", save);
  nb::class_<Predictions>(module, "Predictions")
      .def_prop_ro("passes", &Predictions::passes)
      .def("report", [](const Predictions& found, const std::string& format) {
        return call(Words(nb::dict()), nb::none(),
                    [&](const JobControl&) { return prediction_report(found, format); });
      });
  module.def("score_path", score_path, nb::arg(), nb::arg(), nb::arg().none());
  module.def("score_ids", score_ids, nb::arg(), nb::arg(), nb::arg().none());
  module.def("predict_path", predict_path, nb::arg(), nb::arg(), nb::arg().none());
  module.def("predict_ids", predict_ids, nb::arg(), nb::arg(), nb::arg().none());
}

}  // namespace moelora::python
