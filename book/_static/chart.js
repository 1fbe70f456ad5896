/* Interactive figures. A `figure.chart` has a chart as JSON (Plotly's data and layout) and a picture of it. Where Plotly's script
   lies beside this one (lib/book/extension.py puts it there), the chart takes the picture's place; on paper the picture stays. */
(() => {
  const folder = document.currentScript.src.replace(/[^/]*$/, '')

  function draw(figure) {
    const { data, layout } = JSON.parse(figure.querySelector('script').textContent)
    const plot = figure.querySelector('.plot')
    const theme = () => {
      const style = getComputedStyle(document.documentElement)
      const [ink, line, ground] = ['text-base', 'border', 'background'].map(name => style.getPropertyValue(`--pst-color-${name}`).trim())
      const colours = { 'font.color': ink, paper_bgcolor: ground, plot_bgcolor: ground, 'hoverlabel.bgcolor': ground, 'hoverlabel.font.color': ink }
      for (const axis of ['xaxis', 'yaxis']) Object.assign(colours, { [`${axis}.gridcolor`]: line, [`${axis}.linecolor`]: ink })
      layout.updatemenus?.forEach((_, n) => Object.assign(colours, { [`updatemenus[${n}].bgcolor`]: ground, [`updatemenus[${n}].bordercolor`]: line }))
      layout.sliders?.forEach((_, n) => Object.assign(colours, { [`sliders[${n}].bgcolor`]: line, [`sliders[${n}].bordercolor`]: line }))
      return colours
    }
    figure.classList.add('live')
    Plotly.newPlot(plot, data, layout, { responsive: true, displayModeBar: false }).then(() => Plotly.relayout(plot, theme()))
    new MutationObserver(() => Plotly.relayout(plot, theme())).observe(document.documentElement, { attributeFilter: ['data-theme'] })
  }

  document.addEventListener('DOMContentLoaded', () => {
    const figures = document.querySelectorAll('figure.chart')
    if (!figures.length) return
    const script = document.createElement('script')
    script.src = `${folder}plotly.min.js`
    script.onload = () => figures.forEach(draw)
    document.head.append(script)
  })
})()
