#include <nanobind/stl/optional.h>

#include "lib/check/ignore.h"
#include "tools/python/call.h"
#include "tools/python/module.h"
#include "tools/python/result.h"

namespace moelora::python {
namespace {

Validation validate_paths(const std::vector<std::string>& adapters, const nb::dict& options,
                          nb::object progress) {
  const Words words(options);
  ValidateOptions how = in_python(words, [&] { return validate_options(words); });
  return call(words, std::move(progress), [&](const JobControl& job) {
    how.job = job;
    return validate(adapters, how);
  });
}

std::string report_as(const Validation& found, const std::string& format, const nb::dict& options) {
  const Words words(options);
  const ReportOptions how = in_python(words, [&] { return report_options(words); });
  return call(words, nb::none(), [&](const JobControl&) { return report(found, format, how); });
}

// "clean", "findings" or "not judged".
std::string outcome_of(const Validation& found, const nb::dict& options) {
  const Words words(options);
  switch (in_python(words, [&] { return found.outcome(report_options(words).fail_on); })) {
    case Outcome::clean:
      return "clean";
    case Outcome::findings:
      return "findings";
    case Outcome::not_judged:
      break;
  }
  return "not judged";
}

std::optional<nb::dict> repair_into(const Validation& found, const std::string& out,
                                    nb::object progress) {
  const Repair* repair = find_repair(found);
  if (repair == nullptr) return std::nullopt;
  return result_dict(call(Words(nb::dict()), std::move(progress), [&](const JobControl& job) {
    return repair_adapter(*repair, out, job);
  }));
}

}  // namespace

void bind_validate(nb::module_& module) {
  nb::class_<Validation>(module, "Validation")
      .def_ro("unused_ignores", &Validation::unused_ignores)
      .def_ro("rules_run", &Validation::rules_run)
      .def("summary", [](const Validation& found) { return summary(found); })
      .def("report", report_as)
      .def("outcome", outcome_of)
      .def("repair", repair_into, nb::arg(), nb::arg().none());
  module.def("validate", validate_paths, nb::arg(), nb::arg(), nb::arg().none());
  module.def("find_project_file", [](const std::string& folder) {
    return path_text(in_python(Words(nb::dict()), [&] { return find_project_file(folder); }));
  });
}

}  // namespace moelora::python
