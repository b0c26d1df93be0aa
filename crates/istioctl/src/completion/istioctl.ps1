# PowerShell completion for istioctl. Load it with: istioctl completion powershell | Out-String | Invoke-Expression

Register-ArgumentCompleter -Native -CommandName istioctl -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Select-Object -Skip 1 | ForEach-Object { "$_" })
    if ($wordToComplete -eq '') {
        # An empty word would be lost on its way.
        $words += '""'
    }
    istioctl __complete @words 2>$null | Where-Object { $_ -notmatch '^:[0-9]+$' } | ForEach-Object {
        $name, $about = $_ -split "`t", 2
        if (-not $about) {
            $about = $name
        }
        [System.Management.Automation.CompletionResult]::new($name, $name, 'ParameterValue', $about)
    }
}
