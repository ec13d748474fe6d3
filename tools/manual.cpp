#include "tools/manual.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "lib/base/version.h"

namespace moelora {
namespace {

// "TEXT:{text,json}": the words in braces.
std::vector<std::string> words_of(const std::string& type) {
  const size_t open = type.find('{'), close = type.find('}');
  if (open == std::string::npos || close == std::string::npos) return {};
  return CLI::detail::split(type.substr(open + 1, close - open - 1), ',');
}

ManualOption option_of(const CLI::Option& option) {
  ManualOption out;
  out.positional = option.get_positional();
  out.required = option.get_required();
  out.help = option.get_description();
  if (option.get_expected_max() > 0) {
    out.choices = words_of(option.get_type_name());
    out.value = option.get_type_name();
    if (const size_t check = out.value.find(':'); check != std::string::npos)
      out.value.resize(check);
  }
  if (out.positional) {
    out.names = {option.get_single_name()};
    return out;
  }
  for (const std::string& name : option.get_snames()) out.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) out.names.push_back("--" + name);
  return out;
}

// ---- roff ----

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else if (c == '.' && (out.empty() || out.back() == '\n'))
      out += "\\&.";
    else if (c == '\'')
      out += "\\(aq";
    else
      out += c;
  }
  return out;
}

std::string in_bold(std::string_view text) { return "\\fB" + escaped(text) + "\\fR"; }

std::string option_text(const ManualOption& option) {
  std::string term;
  for (const std::string& name : option.names)
    term += (term.empty() ? "" : ", ") + (option.positional ? escaped(name) : in_bold(name));
  for (const std::string& choice : option.choices)  // a line may end after each
    term += (&choice == option.choices.data() ? " " : "|\\:") + escaped(choice);
  if (option.choices.empty() && !option.value.empty() && !option.positional)
    term += " \\fI" + escaped(option.value) + "\\fR";
  return fmt::format(".TP\n{}\n{}{}\n", term, escaped(option.help),
                     option.required ? " (required)" : "");
}

// Lines as they are: examples are commands.
std::string plain_text(const std::string& text) {
  return text.empty() ? "" : ".PP\n.nf\n" + escaped(text) + "\n.fi\n";
}

std::string command_text(const ManualCommand& command) {
  std::string text = fmt::format(".SS {}\n{}\n", escaped(command.usage), escaped(command.help));
  for (const ManualOption& option : command.options) text += option_text(option);
  return text + plain_text(command.footer);
}

}  // namespace

ManualCommand manual_of(const CLI::App& app) {
  ManualCommand out;
  out.name = app.get_name();
  out.help = app.get_description();
  out.footer = app.get_footer();
  out.usage = (app.get_parent() != nullptr ? app.get_parent()->get_name() + " " : "") + out.name;
  out.usage += " [OPTIONS]";
  for (const CLI::Option* option : app.get_options()) {
    out.options.push_back(option_of(*option));
    const ManualOption& last = out.options.back();
    if (last.positional)
      out.usage += last.required ? " " + last.names.front() : " [" + last.names.front() + "]";
  }
  for (const CLI::App* command : app.get_subcommands({}))
    out.commands.push_back(manual_of(*command));
  if (!out.commands.empty()) out.usage += " COMMAND";
  return out;
}

std::string manual_page(const CLI::App& app) {
  const ManualCommand tool = manual_of(app);
  std::string title = tool.name;
  std::transform(title.begin(), title.end(), title.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  std::string text = fmt::format(".TH {} 1 \"\" \"moelora {}\"\n.SH NAME\n{} \\- {}\n", title,
                                 version(), escaped(tool.name), escaped(tool.help));
  text += fmt::format(".SH SYNOPSIS\n{}\n.SH OPTIONS\n", escaped(tool.usage));
  for (const ManualOption& option : tool.options) text += option_text(option);
  if (!tool.commands.empty()) text += ".SH COMMANDS\n";
  for (const ManualCommand& command : tool.commands) text += command_text(command);
  return text + (tool.footer.empty() ? "" : ".SH NOTES\n" + plain_text(tool.footer));
}

}  // namespace moelora
