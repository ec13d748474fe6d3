// lora-diff weights ADAPTER_A ADAPTER_B

#include <CLI/CLI.hpp>
#include <memory>

#include "lib/moelora.h"
#include "tools/diff/commands.h"
#include "tools/load_options.h"
#include "tools/page_origin.h"
#include "tools/terminal.h"

namespace moelora {
namespace {

struct WeightsCommand {
  CommonOptions common;
  LoadFlags load;
  CompareWeightsOptions options;
  std::string a, b, format = "text";
  bool verbose = false;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub =
        app.add_subcommand("weights", "Compare two adapters, in any two layouts, in weight space");
    sub->add_option("ADAPTER_A", a, "Adapter folder or weights file")->required();
    sub->add_option("ADAPTER_B", b, "The other one")->required();
    add_load_options(*sub, load);
    sub->add_option("--tolerance", options.tolerance,
                    "Relative distance up to which two deltas are the same")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    add_choice(*sub, "--format", format, "Form of the report", {"text", "json", "html"});
    sub->add_flag("-v,--verbose", verbose, "On a terminal with colors: heat maps too");
    add_common_options(*sub, common);
    sub->footer(examples(
        {"lora-diff weights trained converted --base openai/gpt-oss-20b",
         "lora-diff weights trained other --tolerance 1e-3 --format html --output report.html"}));
    return sub;
  }

  int run() {
    std::vector<std::string> inputs = load.inputs();
    inputs.insert(inputs.end(), {a, b});
    open_output(common, inputs);
    static_cast<LoadOptions&>(options) = load.options();
    const PageOrigin origin = page_origin(format);
    options.threads = common.threads;
    options.spectrum = format == "html";
    options.job = shown_job(common.quiet);
    const WeightComparison c = compare_weights(a, b, options);
    for (const std::string& note : c.notes) print_note(common, kDiffTool, note);
    print_report(c, origin);
    return c.same() ? kClean : kFindings;
  }

  void print_report(const WeightComparison& c, const PageOrigin& origin) const {
    if (format == "json") return print_data(common, weight_json(c));
    if (format == "html") return print_data(common, weight_html(c, origin));
    if (!verbose || !wants_blocks(common)) return print_data(common, weight_text(c));
    print_data(common, weight_blocks(c, terminal_width(common)) + "\n" + weight_text(c),
               DataKind::colored);
  }
};

}  // namespace

DiffCommand add_weights(CLI::App& app) {
  const auto command = std::make_shared<WeightsCommand>();
  return {command->add(app), [command] { return command->run(); }};
}

}  // namespace moelora
