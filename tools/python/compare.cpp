#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <tuple>

#include "tools/python/call.h"
#include "tools/python/module.h"

namespace moelora::python {
namespace {

template <class T>
using Row = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// The JSON report and whether the two are the same.
std::pair<std::string, bool> diff_weights(const std::string& a, const std::string& b,
                                          const nb::dict& options, nb::object progress) {
  const Words words(options);
  CompareWeightsOptions how = in_python(words, [&] { return weights_options(words); });
  return call(words, std::move(progress), [&](const JobControl& job) {
    how.job = job;
    const WeightComparison found = compare_weights(a, b, how);
    return std::pair(weight_json(found), found.same());
  });
}

// [(logprobs, tokens or None, mask or None)], a sequence each; what the mask leaves out has no
// value.
Scores scores_of(const std::string& name, const nb::list& sequences) {
  Scores out{name, "array", "", {}, {}};
  for (const nb::handle each : sequences) {
    const auto [values, tokens, mask] =
        nb::cast<std::tuple<Row<double>, std::optional<Row<int64_t>>, std::optional<Row<bool>>>>(
            each);
    Sequence& sequence = out.sequences.emplace_back();
    for (size_t i = 0; i < values.size(); ++i)
      sequence.add(mask && !mask->data()[i] ? std::nullopt : std::optional(values.data()[i]));
    if (tokens) sequence.tokens.assign(tokens->data(), tokens->data() + tokens->size());
  }
  return out;
}

Comparison diff_files(const std::string& a, const std::string& b, const nb::dict& options) {
  const Words words(options);
  CompareLogprobsOptions how = in_python(words, [&] { return logprobs_options(words); });
  return call(words, nb::none(), [&](const JobControl& job) {
    how.job = job;
    return compare_logprobs(a, b, how);
  });
}

Comparison diff_arrays(const nb::list& a, const nb::list& b, const nb::dict& options) {
  const Words words(options);
  CompareLogprobsOptions how = in_python(words, [&] { return logprobs_options(words); });
  Scores x = scores_of("a", a), y = scores_of("b", b);
  return call(words, nb::none(), [&](const JobControl& job) {
    how.job = job;
    return compare_logprobs(std::move(x), std::move(y), how);
  });
}

}  // namespace

void bind_compare(nb::module_& module) {
  nb::class_<Comparison>(module, "Comparison")
      .def_prop_ro("verdict",
                   [](const Comparison& c) { return std::string(verdict_name(c.verdict)); })
      .def("report", [](const Comparison& c, const std::string& format) {
        return call(Words(nb::dict()), nb::none(),
                    [&](const JobControl&) { return comparison_report(c, format); });
      });
  module.def("diff_weights", diff_weights, nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
  module.def("diff_files", diff_files);
  module.def("diff_arrays", diff_arrays);
}

}  // namespace moelora::python
